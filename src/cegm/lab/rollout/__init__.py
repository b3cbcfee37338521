"""A release on its way into production: approval, a router between two servers, gates, and the way back."""
