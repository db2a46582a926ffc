-- needs: access_list
CREATE OR REPLACE FUNCTION bisonsync_private.refused_changes()
RETURNS TABLE (table_name text, reason text, cure text)
LANGUAGE plpgsql
-- Names are compared as the server spells them.
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
AS $$
DECLARE
    suspect record;
BEGIN
    FOR suspect IN
        WITH published AS (
            SELECT c.oid, c.relreplident, format('%I.%I', n.nspname, c.relname) AS target, b.oid AS publication, b.pubname,
                to_jsonb(b) ->> 'pubgencols' = 'n' AS leaves_out_generated,
                bool_or(r.prattrs IS NOT NULL) AS has_column_list,
                bool_or(r.prattrs IS NOT NULL OR r.prqual IS NOT NULL) AS is_narrowed
            FROM (SELECT DISTINCT l.identity FROM bisonsync_private.access_list() AS l WHERE l.kind = 'TABLE') AS ours
            INNER JOIN pg_namespace AS n ON n.nspname = split_part(ours.identity, '.', 1)
            INNER JOIN pg_class AS c
                ON c.relnamespace = n.oid AND c.relname = substr(ours.identity, strpos(ours.identity, '.') + 1)
                AND c.relkind IN ('r', 'p')
            -- A partition is published by itself or with what it is part of.
            CROSS JOIN LATERAL (
                SELECT c.oid UNION SELECT a.relid FROM pg_partition_ancestors(c.oid) AS a
            ) AS part (oid)
            INNER JOIN pg_class AS whole ON whole.oid = part.oid
            INNER JOIN pg_namespace AS home ON home.oid = whole.relnamespace
            INNER JOIN pg_publication_tables AS x ON x.schemaname = home.nspname AND x.tablename = whole.relname
            INNER JOIN pg_publication AS b ON b.pubname = x.pubname AND (b.pubupdate OR b.pubdelete)
            LEFT JOIN pg_publication_rel AS r ON r.prpubid = b.oid AND r.prrelid = part.oid
            GROUP BY c.oid, c.relreplident, n.nspname, c.relname, b.oid, b.pubname, leaves_out_generated
        )
        SELECT p.oid, p.target, p.relreplident,
            string_agg(quote_ident(p.pubname), ', ' ORDER BY p.pubname) AS publications,
            string_agg(quote_ident(p.pubname), ', ' ORDER BY p.pubname)
                FILTER (WHERE p.leaves_out_generated AND NOT p.has_column_list) AS leave_out_generated,
            string_agg(
                format('ALTER PUBLICATION %I SET (publish_generated_columns = stored)', p.pubname), '; ' ORDER BY p.pubname
            ) FILTER (WHERE p.leaves_out_generated AND NOT p.has_column_list) AS publish_generated
        FROM published AS p
        GROUP BY p.oid, p.target, p.relreplident
        -- Nothing else can be refused where every table has a key: the others are not even asked about.
        HAVING p.relreplident <> 'd' OR bool_or(p.is_narrowed)
        ORDER BY p.target
    LOOP
        BEGIN
            -- Only the server knows all that it refuses: it says so when it begins a statement, without doing it.
            EXECUTE 'EXPLAIN DELETE FROM ' || suspect.target;
            EXECUTE (
                SELECT format('EXPLAIN UPDATE %s SET %I = %2$I', suspect.target, t.attname)
                FROM pg_attribute AS t
                WHERE t.attrelid = suspect.oid AND t.attnum > 0 AND NOT t.attisdropped AND t.attgenerated = '' AND t.attidentity = ''
                ORDER BY t.attnum
                LIMIT 1
            );
        EXCEPTION WHEN invalid_column_reference OR object_not_in_prerequisite_state THEN
            GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL;
            table_name := suspect.target;
            reason := format('publication %s: %s', suspect.publications, coalesce(nullif(reason, ''), sqlerrm));
            cure := CASE
                WHEN suspect.relreplident <> 'd' THEN format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', suspect.target)
                ELSE format('ALTER PUBLICATION %s DROP TABLE %s', suspect.publications, suspect.target)
            END;
            IF suspect.publish_generated IS NOT NULL AND suspect.relreplident IN ('f', 'i')
                AND EXISTS (SELECT FROM pg_attribute AS t WHERE t.attrelid = suspect.oid AND t.attgenerated = 's' AND NOT t.attisdropped)
                AND NOT EXISTS (SELECT FROM pg_attribute AS t WHERE t.attrelid = suspect.oid AND t.attgenerated = 'v' AND NOT t.attisdropped)
            THEN
                reason := format('its replica identity needs its generated columns, which publication %s leaves out', suspect.leave_out_generated);
                cure := suspect.publish_generated;
            END IF;
            RETURN NEXT;
        END;
    END LOOP;
END
$$;

COMMENT ON FUNCTION bisonsync_private.refused_changes() IS
    'Our tables whose UPDATEs and DELETEs this server refuses because of a publication they are in, with the reason and the statement that cures it; none when all is right. Changes nothing itself.';
