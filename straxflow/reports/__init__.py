"""What there is to tell about a site and its runs; nothing here changes anything, and nothing prints."""
