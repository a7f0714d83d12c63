"""Messages between clients and the pager, and the channel that carries them."""
