"""What the writer remembers, held against the database."""

from registry.commands.context import Context, Outcome
from registry.storage.views import View
from registry.storage.writer import WriterView

ALIASES = ("approved", "canary", "never")


def disagreements(context: Context) -> Outcome:
    """Every question that memory answers, asked of it and of the database."""
    view = context.view
    assert isinstance(view, WriterView)
    view.rows.write_out()
    stored = View(view.rows._db)
    names = [one.name for one in stored.adapters("", 1000)]
    for name in [*names, "unknown"]:
        assert view.adapter(name) == stored.adapter(name)
        assert view.base_tensors(name) == stored.base_tensors(name)
        assert view.last_number(name) == stored.last_number(name)
        for alias in ALIASES:
            assert view.alias(name, alias) == stored.alias(name, alias)
        for number in range(1, 6):
            version = stored.version(name, number)
            assert view.version(name, number) == version
            job, campaign = stored.job_of(name, number), stored.campaign_of(name, number)
            assert (view.job_of(name, number), view.campaign_of(name, number)) == (job, campaign)
            assert [view.has_named(name, alias, number) for alias in ALIASES] == [
                stored.has_named(name, alias, number) for alias in ALIASES
            ]
            if version:
                assert view.version_by_digest(name, version.digest) == version
            if job:
                assert view.job(job.id) == stored.job(job.id) == job
            if campaign:
                assert view.ratings(campaign.id) == stored.ratings(campaign.id)
                assert view.campaign(campaign.id) == stored.campaign(campaign.id) == campaign
                items = stored.campaign_items(campaign.id)
                assert view.campaign_items(campaign.id) == view.campaign_items(campaign.id) == items
                for item in items:
                    asked = (name, item.number, item.suite, item.source, item.subject)
                    assert view.shown(*asked) == stored.shown(*asked)
                given = stored.assignments(campaign.id)
                assert view.assignments(campaign.id) == given
                for one in given:
                    assert view.assignment(one.id) == one
                for person in ["nobody", *{one.person for one in given}]:
                    assert view.assignments(campaign.id, person) == stored.assignments(campaign.id, person)
                    assert view.ratings(campaign.id, person) == stored.ratings(campaign.id, person)
        assert view.version_by_digest(name, "sha256:" + "0" * 64) is None
    for actor, key in [*stored._all("SELECT actor, key FROM receipts"), ("nobody", "no key")]:
        assert view.receipt(actor, key) == stored.receipt(actor, key)
    assert view.suites() == stored.suites() and view.tokens() == stored.tokens()
    for person in ["nobody", *{one.person for one in stored.tokens()}]:
        assert view.tokens_of(person) == stored.tokens_of(person)
    assert view.unfinished_jobs(["evaluation"]) == stored.unfinished_jobs(["evaluation"])
    assert view.campaigns_in_review() == stored.campaigns_in_review()
    return Outcome(None)
