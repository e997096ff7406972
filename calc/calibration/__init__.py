"""What measurements say of the roofline: factors and overheads per engine and architecture, and how well they hold."""
