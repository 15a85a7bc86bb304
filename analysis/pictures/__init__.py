"""Pictures that any user can draw, and the style that they share."""
