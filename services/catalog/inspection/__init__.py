"""`imagesearch catalog check` and `repair`: what a stopped data folder holds, and what it lost."""
