-- How far each workspace's event log is read.

CREATE TABLE bisonsync_private.event_pulls (
    bison_instance text NOT NULL,
    bison_workspace_id bigint NOT NULL,
    pulled_until timestamptz,
    whole_until timestamptz,
    whole_at timestamptz,
    walk_from timestamptz,
    walk_until timestamptz,
    walk_kind text CHECK (walk_kind IN ('newest', 'unordered', 'whole')),
    walk_cursor text,
    absent_at timestamptz,
    PRIMARY KEY (bison_instance, bison_workspace_id),
    CHECK (walk_cursor IS NULL OR (walk_from IS NOT NULL AND walk_kind IS NOT NULL))
) WITH (fillfactor = 50);

ALTER TABLE bisonsync_private.event_pulls ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE bisonsync_private.event_pulls IS
    'How far pull-events has read the event log of each workspace. It moves in the transaction that stores the events.';
COMMENT ON INDEX bisonsync_private.event_pulls_pkey IS 'Key; each commit of a pull updates its row by it.';
COMMENT ON COLUMN bisonsync_private.event_pulls.bison_instance IS 'Instance of the workspace.';
COMMENT ON COLUMN bisonsync_private.event_pulls.bison_workspace_id IS 'The workspace.';
COMMENT ON COLUMN bisonsync_private.event_pulls.pulled_until IS
    'Until when (by the host''s clock) every event is in the inbox, as far as the log comes newest first; null: none was ever read.';
COMMENT ON COLUMN bisonsync_private.event_pulls.whole_until IS
    'The same by reads to the end of the log, which rely on no order.';
COMMENT ON COLUMN bisonsync_private.event_pulls.whole_at IS 'When such a read was last completed; another is due a day later.';
COMMENT ON COLUMN bisonsync_private.event_pulls.walk_from IS 'How far back an interrupted read has to go.';
COMMENT ON COLUMN bisonsync_private.event_pulls.walk_until IS 'The newest event it has seen; pulled_until once it is complete.';
COMMENT ON COLUMN bisonsync_private.event_pulls.walk_kind IS
    'Where it may end: newest, at the first page beyond walk_from; unordered, for events did not come newest first, or whole, at the end of the log.';
COMMENT ON COLUMN bisonsync_private.event_pulls.walk_cursor IS 'Where the host goes on with it; null: none is interrupted.';
COMMENT ON COLUMN bisonsync_private.event_pulls.absent_at IS
    'When the host last said that it has no event log; it is asked again a day later. Null: it has one, or was never asked.';
