-- What a run was over, fields that move with every read, and remarks that keep no row out.

ALTER TABLE public.email_sync_logs ADD COLUMN covers text[];

COMMENT ON COLUMN public.email_sync_logs.covers IS
    'The instances whose share of the job the run did whole (--instance); null: all there are; empty: chosen parts alone (-w and the like), which says nothing of the job.';

-- What older runs were over stands in their arguments.
UPDATE public.email_sync_logs AS l
SET covers = CASE
    WHEN l.command ~ '(^| )(-w|--workspace)' THEN '{}'
    ELSE ARRAY(
        SELECT DISTINCT lower(m.parts[1])
        FROM regexp_matches(l.command, '(?:^| )--instance[ =]([^ ]+)', 'g') AS m (parts)
        ORDER BY 1
    )
END
WHERE l.command ~ '(^| )(-w|--workspace|--instance)';


ALTER TABLE public.data_validation_errors ADD COLUMN is_note boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN public.data_validation_errors.is_note IS
    'Whether the record was taken all the same, without the field or with what could be read of it.';


ALTER TABLE public.workspace_sync_state ADD COLUMN moving_fields jsonb;

COMMENT ON COLUMN public.workspace_sync_state.moving_fields IS
    'Unknown fields that changed in nearly all rows of the last read, each with path, accounts, and reads in a row; null: none.';

CREATE TABLE bisonsync_private.left_out_fields (
    bison_instance text NOT NULL,
    resource text NOT NULL,
    field text NOT NULL,
    path text[] NOT NULL,
    accounts bigint NOT NULL,
    left_out_at timestamptz NOT NULL DEFAULT now(),
    try_again_at timestamptz NOT NULL,
    times integer NOT NULL DEFAULT 1,
    PRIMARY KEY (bison_instance, resource, field)
);

ALTER TABLE bisonsync_private.left_out_fields ENABLE ROW LEVEL SECURITY;

COMMENT ON TABLE bisonsync_private.left_out_fields IS
    'Unknown fields that moved with every read: alone they are no change of a row, so that a poll does not write all rows each time.';
COMMENT ON INDEX bisonsync_private.left_out_fields_pkey IS 'Key; each read of a workspace looks here.';
COMMENT ON COLUMN bisonsync_private.left_out_fields.bison_instance IS 'Instance whose rows have the field.';
COMMENT ON COLUMN bisonsync_private.left_out_fields.resource IS 'The list.';
COMMENT ON COLUMN bisonsync_private.left_out_fields.field IS 'The field, its objects'' names before it with a dot between.';
COMMENT ON COLUMN bisonsync_private.left_out_fields.path IS 'The same name by name.';
COMMENT ON COLUMN bisonsync_private.left_out_fields.accounts IS 'In about how many rows it moved.';
COMMENT ON COLUMN bisonsync_private.left_out_fields.left_out_at IS 'Since when it is left out.';
COMMENT ON COLUMN bisonsync_private.left_out_fields.try_again_at IS 'From when it counts again, until it has moved as often again.';
COMMENT ON COLUMN bisonsync_private.left_out_fields.times IS 'How often it was found to move.';
