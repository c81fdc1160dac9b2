"""`make demo`: add real pictures, search with edited copies of them, check the results.

`python -m imagesearch.demo [--images FOLDER] [--target HOST:PORT]` needs a running suite. Each type
of library has a module with a function `run`; `__main__` runs all of them.
"""
