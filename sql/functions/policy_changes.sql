-- needs: access_list
CREATE OR REPLACE FUNCTION bisonsync_private.policy_changes(reader name, user_ids text[])
RETURNS SETOF text
LANGUAGE sql
STABLE
-- Names are compared as the server spells them.
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
AS $$
    WITH tables AS (
        SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS target, c.relrowsecurity,
            l.service_privileges, l.reader_columns
        FROM bisonsync_private.access_list() AS l
        INNER JOIN pg_namespace AS n ON n.nspname = split_part(l.identity, '.', 1)
        INNER JOIN pg_class AS c
            ON c.relnamespace = n.oid AND c.relname = substr(l.identity, strpos(l.identity, '.') + 1)
        WHERE l.kind = 'TABLE' AND c.relkind IN ('r', 'p')
    ),
    -- The comment of a policy says what it was made from, so that an unchanged one is known again.
    wanted AS (
        SELECT t.oid, t.target, 'bisonsync_readers' AS policy,
            CASE
                WHEN user_ids IS NULL THEN format('FOR SELECT TO %I USING (true)', reader)
                ELSE format(
                    'FOR SELECT TO %I USING ((SELECT coalesce('
                    'nullif(current_setting(''request.jwt.claim.sub'', true), ''''), '
                    'nullif(current_setting(''request.jwt.claims'', true), '''')::jsonb ->> ''sub'')) = ANY (%L))',
                    reader, user_ids
                )
            END AS rule,
            'Readers by [access] in the settings: ' || coalesce('user ids ' || array_to_string(user_ids, ', '), 'role ' || reader) AS remark
        FROM tables AS t
        WHERE reader IS NOT NULL AND t.reader_columns IS NOT NULL
        UNION ALL
        SELECT t.oid, t.target, 'bisonsync_service', 'FOR ALL TO service_role USING (true) WITH CHECK (true)',
            'For a service_role that does not bypass row security.'
        FROM tables AS t
        INNER JOIN pg_roles AS r ON r.rolname = 'service_role' AND NOT r.rolbypassrls AND NOT r.rolsuper
        WHERE t.service_privileges <> '{}'
    ),
    present AS (
        SELECT t.oid, t.target, y.polname::text AS policy, obj_description(y.oid, 'pg_policy') AS remark
        FROM tables AS t
        INNER JOIN pg_policy AS y ON y.polrelid = t.oid AND y.polname IN ('bisonsync_readers', 'bisonsync_service')
    )
    SELECT s.statement
    FROM (
        SELECT 1 AS step, t.target, format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', t.target) AS statement
        FROM tables AS t
        WHERE NOT t.relrowsecurity
        UNION ALL
        SELECT 2, p.target, format('DROP POLICY %I ON %s', p.policy, p.target)
        FROM present AS p
        WHERE NOT EXISTS (SELECT FROM wanted AS w WHERE w.oid = p.oid AND w.policy = p.policy AND w.remark = p.remark)
        UNION ALL
        SELECT step.number, w.target, step.statement
        FROM wanted AS w
        CROSS JOIN LATERAL (
            VALUES
            (3, format('CREATE POLICY %I ON %s %s', w.policy, w.target, w.rule)),
            (4, format('COMMENT ON POLICY %I ON %s IS %L', w.policy, w.target, w.remark))
        ) AS step (number, statement)
        WHERE NOT EXISTS (SELECT FROM present AS p WHERE p.oid = w.oid AND p.policy = w.policy AND p.remark = w.remark)
        UNION ALL
        -- Without it a server from 18 on refuses to change a table with REPLICA IDENTITY FULL; older ones do not know it.
        SELECT 5, b.pubname::text, 'ALTER PUBLICATION supabase_realtime SET (publish_generated_columns = stored)'
        FROM pg_publication AS b
        WHERE b.pubname = 'supabase_realtime' AND pg_has_role(b.pubowner, 'USAGE') AND to_jsonb(b) ->> 'pubgencols' = 'n'
            AND EXISTS (
                SELECT FROM bisonsync_private.access_list() AS l
                INNER JOIN pg_namespace AS n ON n.nspname = split_part(l.identity, '.', 1)
                INNER JOIN pg_class AS c
                    ON c.relnamespace = n.oid AND c.relname = substr(l.identity, strpos(l.identity, '.') + 1)
                INNER JOIN pg_attribute AS t ON t.attrelid = c.oid
                WHERE l.is_published AND t.attgenerated = 's' AND NOT t.attisdropped
            )
        UNION ALL
        SELECT 5, format('%I.%I', n.nspname, c.relname),
            format('ALTER PUBLICATION supabase_realtime ADD TABLE %I.%I', n.nspname, c.relname)
        FROM bisonsync_private.access_list() AS l
        INNER JOIN pg_namespace AS n ON n.nspname = split_part(l.identity, '.', 1)
        INNER JOIN pg_class AS c
            ON c.relnamespace = n.oid AND c.relname = substr(l.identity, strpos(l.identity, '.') + 1)
        INNER JOIN pg_publication AS b ON b.pubname = 'supabase_realtime' AND pg_has_role(b.pubowner, 'USAGE')
        WHERE l.is_published
            AND NOT EXISTS (
                SELECT FROM pg_publication_tables AS x
                WHERE x.pubname = b.pubname AND x.schemaname = n.nspname AND x.tablename = c.relname
            )
    ) AS s
    ORDER BY s.step, s.target
$$;

COMMENT ON FUNCTION bisonsync_private.policy_changes(name, text[]) IS
    'The statements that are missing for row security, for the policies of reader and service_role, and for Realtime''s publication; none when all is right.';
