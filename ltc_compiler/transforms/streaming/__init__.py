"""From a graph over a whole sequence to a graph of one step, with states."""
