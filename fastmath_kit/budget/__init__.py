"""How much of the clock the next problem may have. Pure: no ML library is imported here."""
