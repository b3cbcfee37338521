"""What a run would take, before it is paid for: memory, time, communication and money per method, from shapes alone."""
