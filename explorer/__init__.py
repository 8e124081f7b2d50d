"""What pages are made of: the frame around them, the plot component, and how the server serves."""
