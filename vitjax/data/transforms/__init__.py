"""What is done to samples on the host: crops, changes of colour and geometry."""
