"""A release that can be audited: model, evidence, signatures; made by `cegm audit`, checked by anyone who has it and two public keys."""
