"""From a pilot to a decision: criteria that are fixed first, a comparison, a verdict in money, and one sheet of paper for who decides."""
