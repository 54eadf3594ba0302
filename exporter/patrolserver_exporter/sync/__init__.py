"""What keeps the state true: accounts, their schedules, polls, events, and the transactions they end in."""
