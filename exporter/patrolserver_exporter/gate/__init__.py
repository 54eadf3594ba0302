"""The deploy gate: the policy, the request, the evidence, the doubts, the verdict."""
