"""Self-contained HTML pages that show the results of calls.

A page loads nothing from the network: pictures and styles are inline, which a content security
policy enforces. Pages fit phones and desktops, have a light and a dark color scheme, are accessible
to screen readers, and escape all text from libraries.

The layout is `templates/base.html` (blocks `title`, `heading`, `lead`, `content`, `footer`). The
macros in `templates/parts.html` are shared by the pages: a picture with outlines, the metadata of
an image, a score with its meaning, timings, notes. `render` renders a template.

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
