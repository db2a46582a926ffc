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
