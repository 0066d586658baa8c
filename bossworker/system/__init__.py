"""What the operating system does and tells. Nothing here knows of pools, commands or tasks."""
