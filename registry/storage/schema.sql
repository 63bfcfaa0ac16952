-- The catalog: the query side, a fold over the journal. No defaults, sequences or clocks: every value comes from an
-- event, so that a rebuilt catalog equals an incremental one. No foreign keys: DuckDB turns an update of a referenced
-- row into delete and insert, and refuses it.

CREATE TABLE applied (
    only_row BOOLEAN PRIMARY KEY CHECK (only_row),
    schema_version INTEGER NOT NULL,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    registry TEXT
);

-- Every key that ever signed here, or may. `public` is NULL for the first key of a journal that does not name its bytes.
CREATE TABLE signing_keys (
    id TEXT PRIMARY KEY,
    public TEXT,
    roles JSON NOT NULL,
    person TEXT,
    valid_from TEXT NOT NULL,
    valid_until TEXT,
    revoked_at TEXT,
    revoked_reason TEXT,
    seq BIGINT NOT NULL
);

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    person TEXT NOT NULL,
    scope TEXT,
    secret_sha256 TEXT NOT NULL UNIQUE,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    revoked_at TEXT,
    publisher TEXT
);

-- CI systems whose own tokens are exchanged for tokens of ours, and which of theirs were.
CREATE TABLE publishers (
    id TEXT PRIMARY KEY,
    scope TEXT NOT NULL,
    issuer TEXT NOT NULL,
    audience TEXT NOT NULL,
    claims JSON NOT NULL,
    keys JSON,
    jwks_url TEXT,
    added_by TEXT NOT NULL,
    created_at TEXT NOT NULL
);

CREATE TABLE minted (
    jti TEXT PRIMARY KEY
);

-- Who may review in which domain, who says so, and of which adapters (all where `scope` is NULL).
CREATE TABLE reviewers (
    id TEXT PRIMARY KEY,
    person TEXT NOT NULL,
    domain TEXT NOT NULL,
    credential TEXT NOT NULL,
    issuer TEXT,
    valid_from TEXT NOT NULL,
    valid_until TEXT NOT NULL,
    scope TEXT,
    vouched_by TEXT NOT NULL,
    vouched_at TEXT NOT NULL,
    withdrawn_at TEXT,
    seq BIGINT NOT NULL
);

-- Bytes that a token limited to a scope has sent: what proves that this scope has them.
CREATE TABLE sent_blobs (
    sha256 TEXT NOT NULL,
    scope TEXT NOT NULL,
    size BIGINT NOT NULL,
    PRIMARY KEY (sha256, scope)
);

CREATE TABLE suites (
    digest TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    n_items BIGINT NOT NULL,
    files JSON NOT NULL,
    max_cut_off DOUBLE NOT NULL,
    chance DOUBLE NOT NULL,
    seq BIGINT NOT NULL
);

-- The files of suites: decides, with version_blobs, who may read a blob.
CREATE TABLE suite_blobs (
    sha256 TEXT NOT NULL,
    suite TEXT NOT NULL,
    PRIMARY KEY (sha256, suite)
);

CREATE TABLE policies (
    digest TEXT PRIMARY KEY,
    document JSON NOT NULL
);

CREATE TABLE adapters (
    name TEXT PRIMARY KEY,
    base JSON NOT NULL,
    base_tensors JSON,
    policy TEXT,
    revision BIGINT NOT NULL,
    created_at TEXT NOT NULL
);

CREATE TABLE versions (
    adapter TEXT NOT NULL,
    number BIGINT NOT NULL CHECK (number > 0),
    digest TEXT NOT NULL,
    state TEXT NOT NULL,
    files JSON NOT NULL,
    training JSON,
    notes TEXT,
    submitter TEXT NOT NULL,
    created_at TEXT NOT NULL,
    sealed_at TEXT,
    policy TEXT,
    findings JSON NOT NULL,
    evidence_digest TEXT,
    evidence JSON,
    decided BIGINT,
    rejected TEXT,
    sealed_by TEXT,
    reviews JSON,
    PRIMARY KEY (adapter, number),
    UNIQUE (adapter, digest)
);

-- Which blobs a version holds, and as what: decides who may read them.
CREATE TABLE version_blobs (
    adapter TEXT NOT NULL,
    number BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    purpose TEXT NOT NULL,
    PRIMARY KEY (adapter, number, sha256, purpose)
);

-- Asked with every download: without it 400,000 rows are looked through.
CREATE INDEX version_blobs_by_sha256 ON version_blobs (sha256);

-- What gate reports observed: one number for each check that measures one. The last report's have `seq` = versions.decided.
CREATE TABLE metrics (
    adapter TEXT NOT NULL,
    number BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    name TEXT NOT NULL,
    value DOUBLE NOT NULL CHECK (isfinite(value)),
    PRIMARY KEY (adapter, number, seq, name)
);

CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    adapter TEXT NOT NULL,
    number BIGINT NOT NULL,
    state TEXT NOT NULL,
    fence BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    worker TEXT,
    reason TEXT,
    seq BIGINT NOT NULL
);

-- `seq`: the entry of the submission; `claim`: that of the latest claim, which orders what its worker tells.
CREATE TABLE trainings (
    id TEXT PRIMARY KEY,
    adapter TEXT NOT NULL,
    status TEXT NOT NULL,
    recipe TEXT NOT NULL,
    dataset TEXT NOT NULL,
    replay TEXT,
    preferences TEXT,
    notes TEXT,
    submitter TEXT NOT NULL,
    created_at TEXT NOT NULL,
    started_at TEXT,
    finished_at TEXT,
    worker TEXT,
    fence BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    claim BIGINT,
    error JSON,
    version BIGINT,
    seq BIGINT NOT NULL
);

-- What happened to each run, as far as the journal knows.
CREATE TABLE training_facts (
    training TEXT NOT NULL,
    seq BIGINT NOT NULL,
    told_at TEXT NOT NULL,
    level TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (training, seq)
);

-- Every item of every suite of every version, loaded from the evidence's Parquet blob.
CREATE TABLE items (
    adapter TEXT NOT NULL,
    number BIGINT NOT NULL,
    suite TEXT NOT NULL,
    item TEXT NOT NULL,
    subject TEXT NOT NULL,
    prompt TEXT,
    output TEXT,
    correct BOOLEAN,
    nll_nats DOUBLE CHECK (isfinite(nll_nats)),
    n_tokens BIGINT,
    finish TEXT,
    contaminated BOOLEAN,
    tags VARCHAR[] NOT NULL,
    n_bytes BIGINT,
    gold_nll_nats DOUBLE CHECK (isfinite(gold_nll_nats)),
    gold_tokens BIGINT,
    kl_nats DOUBLE CHECK (isfinite(kl_nats)),
    kl_tokens BIGINT,
    PRIMARY KEY (adapter, number, suite, item, subject)
);

CREATE TABLE campaigns (
    id TEXT PRIMARY KEY,
    adapter TEXT NOT NULL,
    number BIGINT NOT NULL,
    policy TEXT NOT NULL,
    suite TEXT NOT NULL,
    reviewers BIGINT NOT NULL,
    root TEXT NOT NULL,
    opened_by TEXT NOT NULL,
    opened_at TEXT NOT NULL,
    sealed_at TEXT,
    result TEXT,
    seq BIGINT NOT NULL,
    UNIQUE (adapter, number, policy)
);

-- What is rated: the answer of `subject` (in version `number`) to item `source` of a suite.
CREATE TABLE campaign_items (
    campaign TEXT NOT NULL,
    position INTEGER NOT NULL,
    item TEXT NOT NULL,
    hash TEXT NOT NULL,
    kind TEXT NOT NULL,
    suite TEXT NOT NULL,
    source TEXT NOT NULL,
    subject TEXT NOT NULL,
    number BIGINT NOT NULL,
    words BIGINT NOT NULL,
    expect JSON,
    PRIMARY KEY (campaign, item)
);

CREATE TABLE assignments (
    id TEXT PRIMARY KEY,
    campaign TEXT NOT NULL,
    person TEXT NOT NULL,
    item TEXT NOT NULL,
    position BIGINT NOT NULL,
    batch BIGINT,
    issued_at TEXT NOT NULL,
    state TEXT NOT NULL,
    skip_reason TEXT, -- of older entries; of others see `words`
    UNIQUE (campaign, person, item),
    UNIQUE (campaign, person, position)
);

-- Every rating there ever was; of an assignment, the one with the highest revision stands.
CREATE TABLE ratings (
    assignment TEXT NOT NULL,
    revision BIGINT NOT NULL,
    campaign TEXT NOT NULL,
    person TEXT NOT NULL,
    clarity INTEGER NOT NULL CHECK (clarity BETWEEN 1 AND 5),
    relevance INTEGER NOT NULL CHECK (relevance BETWEEN 1 AND 5),
    safety INTEGER NOT NULL CHECK (safety BETWEEN 1 AND 5),
    accuracy INTEGER NOT NULL CHECK (accuracy BETWEEN 1 AND 5),
    hallucination BOOLEAN NOT NULL,
    unsafe BOOLEAN NOT NULL,
    discuss BOOLEAN NOT NULL,
    comment TEXT,
    channel TEXT NOT NULL,
    seconds DOUBLE CHECK (isfinite(seconds)),
    rated_at TEXT NOT NULL,
    seq BIGINT NOT NULL,
    PRIMARY KEY (assignment, revision)
);

-- What people wrote beside an assignment, or beside the item of a ruling (`campaign/item`): blobs that can be erased.
CREATE TABLE words (
    about TEXT NOT NULL,
    seq BIGINT NOT NULL,
    kind TEXT NOT NULL,
    campaign TEXT NOT NULL,
    person TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    erased BOOLEAN NOT NULL,
    PRIMARY KEY (about, seq)
);

-- What uninvolved experts said of items that were rated unsafe.
CREATE TABLE adjudications (
    campaign TEXT NOT NULL,
    item TEXT NOT NULL,
    upheld BOOLEAN NOT NULL,
    person TEXT NOT NULL,
    reason TEXT NOT NULL,
    adjudicated_at TEXT NOT NULL,
    PRIMARY KEY (campaign, item)
);

CREATE TABLE aliases (
    adapter TEXT NOT NULL,
    alias TEXT NOT NULL,
    number BIGINT NOT NULL,
    digest TEXT NOT NULL,
    counter BIGINT NOT NULL,
    moved_at TEXT NOT NULL,
    PRIMARY KEY (adapter, alias)
);

CREATE TABLE alias_moves (
    adapter TEXT NOT NULL,
    alias TEXT NOT NULL,
    counter BIGINT NOT NULL,
    previous BIGINT,
    number BIGINT NOT NULL,
    digest TEXT NOT NULL,
    moved_by TEXT NOT NULL,
    made_at TEXT NOT NULL,
    reason TEXT NOT NULL,
    -- Left to choose, DuckDB tries a compression on signatures that holds every checkpoint up for seconds.
    attestation JSON NOT NULL USING COMPRESSION zstd,
    PRIMARY KEY (adapter, alias, counter)
);

-- The newest move of each alias that waits for a second signature. It is void once the alias has moved.
CREATE TABLE proposals (
    adapter TEXT NOT NULL,
    alias TEXT NOT NULL,
    counter BIGINT NOT NULL,
    previous BIGINT,
    number BIGINT NOT NULL,
    digest TEXT NOT NULL,
    proposed_by TEXT NOT NULL,
    made_at TEXT NOT NULL,
    reason TEXT NOT NULL,
    attestation JSON NOT NULL,
    PRIMARY KEY (adapter, alias)
);

CREATE TABLE webhooks (
    id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    events JSON NOT NULL,
    scope TEXT,
    secret_sha256 TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at TEXT NOT NULL,
    seq BIGINT NOT NULL,
    disabled_at TEXT,
    disabled_reason TEXT
);

-- What each Idempotency-Key was answered.
CREATE TABLE receipts (
    actor TEXT NOT NULL,
    key TEXT NOT NULL,
    request TEXT NOT NULL,
    status INTEGER NOT NULL,
    answer JSON NOT NULL,
    PRIMARY KEY (actor, key)
);
