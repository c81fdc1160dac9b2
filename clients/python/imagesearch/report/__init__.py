"""Pages for people: one self-contained HTML file that shows what a call answered.

A page asks nothing of any network: pictures, style and words are all inside, and a policy in its
head keeps it so. It reads at the width of a phone and of a desk, in light and in dark, and by a
screen reader; whatever libraries hold is escaped.

The frame is `templates/base.html` (blocks `title`, `heading`, `lead`, `content`, `footer`); the
parts that pages share are macros in `templates/parts.html`: a picture with its outlines, an image's
words, a score with what it means, timings, notes. `render` fills a template in.

>>> from imagesearch.report import Query, search_page
>>> page = search_page("zoo", [Query("copy.jpg", picture, answer)])
>>> page.startswith("<!doctype html>")
True
"""

from imagesearch.report.comparison import ComparedPicture, comparison_page
from imagesearch.report.duplicates import duplicates_page
from imagesearch.report.figures import Figure, Outline, data_uri, figure, thumbnail
from imagesearch.report.rendering import render
from imagesearch.report.searches import Query, detection_page, search_page
from imagesearch.report.words import chance_words, count_words, duration_words, size_words

__all__ = [
    "ComparedPicture",
    "Figure",
    "Outline",
    "Query",
    "chance_words",
    "comparison_page",
    "count_words",
    "data_uri",
    "detection_page",
    "duplicates_page",
    "duration_words",
    "figure",
    "render",
    "search_page",
    "size_words",
    "thumbnail",
]
