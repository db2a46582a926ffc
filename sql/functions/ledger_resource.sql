CREATE OR REPLACE FUNCTION bisonsync_private.ledger_resource(p_job text)
RETURNS text
LANGUAGE sql
IMMUTABLE
AS $$
    SELECT regexp_replace(p_job, '^(poll|pull)-', '')
$$;

COMMENT ON FUNCTION bisonsync_private.ledger_resource(text) IS
    'Under which resource the ledger keeps what a job did in a workspace: the list that it reads, else the name of the job.';
