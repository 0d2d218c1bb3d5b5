"""What is kept and carried. Brokers know no hub: they get one ``deliver`` function."""
