CREATE OR REPLACE FUNCTION bisonsync_private.judge_event(
    forced_verdict text,
    fault text,
    is_sample boolean,
    event jsonb,
    part jsonb,
    told_name text,
    told_origin text,
    told_workspace_id text,
    is_by_name boolean,
    hook_instance text,
    hook_workspace_id bigint,
    owner_instance text,
    is_registered boolean,
    occurred_at timestamptz
)
RETURNS TABLE (
    verdict text,
    reason text
)
LANGUAGE sql
STABLE
AS $$
    SELECT
        CASE
            WHEN found.cause IN ('mismatch', 'unknown_workspace', 'test', 'ignored') THEN found.cause
            WHEN found.cause IS NOT NULL THEN 'dead'
            ELSE 'apply'
        END,
        CASE found.cause
            WHEN 'mismatch' THEN coalesce(
                'the payload is of workspace ' || left(told_workspace_id, 40) || ' at '
                || coalesce(left(told_origin, 200), 'an instance it does not name')
                || ', the address it came to belongs to ' || hook_instance || '/' || hook_workspace_id,
                'the payload is of another workspace than the address it came to'
            )
            WHEN 'unknown_workspace' THEN CASE
                WHEN is_by_name
                    THEN 'no registered workspace, or more than one, has this name: ' || coalesce(left(told_name, 100), '')
                ELSE 'workspace ' || left(told_workspace_id, 40) || ' of '
                || coalesce(owner_instance, left(told_origin, 200), 'an instance it does not name') || ' is not registered'
            END
            WHEN 'test' THEN 'a test'
            WHEN 'ignored' THEN 'too old: more than 70 days ago'
            ELSE found.cause
        END
    FROM (
        SELECT CASE
            WHEN forced_verdict IS NOT NULL THEN forced_verdict
            WHEN jsonb_typeof(event) IS DISTINCT FROM 'object' THEN fault
            WHEN is_sample THEN 'test'
            -- The sample of the tag events, which bears no moment.
            WHEN
                told_name = 'Red Team' AND hook_workspace_id::text <> told_workspace_id
                AND part @> '{"tag_id": 1, "tag_name": "Interested", "taggable_id": 20, "taggable_type": "Campaign"}'
                THEN 'test'
            WHEN
                hook_instance IS NOT NULL
                AND (
                    (told_workspace_id IS NOT NULL AND told_workspace_id <> hook_workspace_id::text)
                    OR (
                        told_origin IS NOT NULL
                        AND coalesce(
                            (
                                -- A former address at which another instance is now is that one's.
                                SELECT bool_and(
                                    own.origin <> told_origin
                                    OR (
                                        own.is_former
                                        AND EXISTS (
                                            SELECT
                                            FROM bisonsync_private.instance_origins AS other
                                            WHERE
                                                other.origin = own.origin
                                                AND NOT other.is_former
                                                AND other.bison_instance <> own.bison_instance
                                        )
                                    )
                                )
                                FROM bisonsync_private.instance_origins AS own
                                WHERE own.bison_instance = hook_instance
                            ),
                            -- Of an instance that is no longer in the settings only what is plainly another's is refused.
                            EXISTS (SELECT FROM bisonsync_private.instance_origins AS known WHERE known.origin = told_origin)
                        )
                    )
                )
                THEN 'mismatch'
            WHEN fault IS NOT NULL THEN fault
            WHEN told_workspace_id IS NULL AND hook_instance IS NULL AND NOT is_by_name
                THEN 'event.workspace_id is missing, and it came to no workspace''s own address'
            WHEN NOT is_registered THEN 'unknown_workspace'
            WHEN occurred_at < now() - interval '70 days' THEN 'ignored'
        END AS cause
        -- A fence: the cause is found once, though verdict and reason both name it.
        OFFSET 0
    ) AS found
    -- A fence: the caller names the verdict more than once.
    OFFSET 0
$$;

COMMENT ON FUNCTION bisonsync_private.judge_event(text, text, boolean, jsonb, jsonb, text, text, text, boolean, text, bigint, text, boolean, timestamptz) IS
    'Whether an event may take effect (verdict apply), or how it ends without and why, from what identify_event, event_moment and event_owner found. A fault of its shape counts only where it is neither a test nor of another workspace than the address it came to.';
