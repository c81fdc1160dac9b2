"""The program of `make demo`: adds real pictures, searches with edited copies, checks the results.

`python -m imagesearch.demo [--images FOLDER] [--target HOST:PORT]` needs a running suite. The demo
of each library type is a module with a function `run`; `__main__` runs all demos.
"""
