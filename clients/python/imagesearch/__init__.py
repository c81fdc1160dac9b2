"""Search by image: generated stubs, the client (`imagesearch.client`), the command line.

Nothing is imported here, so that a service that needs one stub loads just that.
"""
