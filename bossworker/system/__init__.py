"""What the operating system and the interpreter give: the rooms above stand on it, and it on none of them."""
