"""What pixels are: one file to one array and back; thermal cameras and their values."""
