"""Before a run: what the data holds, what a run would leave out, what must be looked at; `check` joins the parts."""
