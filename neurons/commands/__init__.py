"""What the command line does beside serving: one module a group of commands, free of typer."""
