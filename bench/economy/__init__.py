"""What honest and dishonest people earn: a simulation on the contracts, and the tables of docs/ECONOMICS.md."""
