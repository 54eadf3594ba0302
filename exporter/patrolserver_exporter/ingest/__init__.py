"""What changes the state: deliveries become events become issues, polls confirm them, and a schedule drives both."""
