"""Jobs as forks of a process that has done its imports; each works without, too, only later."""
