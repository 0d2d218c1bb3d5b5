"""An answer that comes token by token and survives a reload of the page."""
