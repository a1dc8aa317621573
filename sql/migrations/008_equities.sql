-- Stock exchanges: intraday candles that open on the half hour, and the splits and dividends of shares.

-- Stock exchanges go by their market identifier code in lower case, such as xnys.
ALTER TABLE market_data DROP CONSTRAINT market_data_grid;
ALTER TABLE market_data ADD CONSTRAINT market_data_grid CHECK (
    mod(extract(epoch FROM "timestamp"), extract(epoch FROM
        CASE WHEN exchange ~ '^x[a-z0-9]{3}$' AND timeframe::interval < interval '1 day'
             THEN LEAST(timeframe::interval, interval '30 minutes')
             ELSE timeframe::interval END
    )) = 0
);

CREATE TABLE corporate_actions (
    exchange text NOT NULL,
    pair text NOT NULL,
    ex_date date NOT NULL,
    kind text NOT NULL CHECK (kind IN ('split', 'dividend')),
    value double precision NOT NULL CHECK (value > 0 AND value < 'Infinity'),
    source text NOT NULL,
    ingested_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (exchange, pair, ex_date, kind)
);
COMMENT ON TABLE corporate_actions IS 'Splits and dividends. Candles are stored as traded, and adjusted when they are read for a training.';
COMMENT ON COLUMN corporate_actions.ex_date IS 'First trading day on which the price no longer holds what was given.';
COMMENT ON COLUMN corporate_actions.value IS 'Of a split, the shares that one share becomes; of a dividend, the amount per share as paid, in the currency of the prices.';

CREATE TABLE corporate_action_revisions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    exchange text NOT NULL,
    pair text NOT NULL,
    ex_date date NOT NULL,
    kind text NOT NULL,
    value double precision NOT NULL,
    source text NOT NULL,
    ingested_at timestamptz NOT NULL,
    restated_at timestamptz NOT NULL DEFAULT now(),
    restated_by text NOT NULL
);
CREATE INDEX corporate_action_revisions_pair ON corporate_action_revisions (exchange, pair, ex_date);
COMMENT ON TABLE corporate_action_revisions IS 'Former values of splits and dividends that a source restated later.';
