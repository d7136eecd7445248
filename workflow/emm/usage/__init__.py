"""The account of what ran: requested against used, in all and by rule, experiment and figure."""
