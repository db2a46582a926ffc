-- needs: access_list
CREATE OR REPLACE FUNCTION bisonsync_private.grant_changes(reader name)
RETURNS SETOF text
LANGUAGE sql
STABLE
-- Names are compared as the server spells them.
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
AS $$
    WITH objects AS (
        SELECT l.kind, c.oid, format('%I.%I', n.nspname, c.relname) AS target, c.relowner AS owner,
            coalesce(c.relacl, acldefault(CASE l.kind WHEN 'TABLE' THEN 'r' ELSE 's' END::"char", c.relowner)) AS acl,
            l.service_privileges, l.reader_columns
        FROM bisonsync_private.access_list() AS l
        INNER JOIN pg_namespace AS n ON n.nspname = split_part(l.identity, '.', 1)
        INNER JOIN pg_class AS c
            ON c.relnamespace = n.oid AND c.relname = substr(l.identity, strpos(l.identity, '.') + 1)
        WHERE l.kind IN ('TABLE', 'SEQUENCE')
        UNION ALL
        SELECT l.kind, p.oid, p.oid::regprocedure::text, p.proowner,
            coalesce(p.proacl, acldefault('f', p.proowner)), l.service_privileges, l.reader_columns
        FROM bisonsync_private.access_list() AS l
        INNER JOIN pg_namespace AS n ON n.nspname = split_part(l.identity, '.', 1)
        INNER JOIN pg_proc AS p
            ON p.pronamespace = n.oid AND p.proname = substr(l.identity, strpos(l.identity, '.') + 1)
        WHERE l.kind = 'FUNCTION'
        UNION ALL
        SELECT l.kind, n.oid, l.identity, n.nspowner,
            coalesce(n.nspacl, acldefault('n', n.nspowner)), l.service_privileges, l.reader_columns
        FROM bisonsync_private.access_list() AS l
        INNER JOIN pg_namespace AS n ON n.nspname = l.identity
        WHERE l.kind = 'SCHEMA'
    ),
    -- Everybody the rules speak of, and whoever was a reader before; other roles keep what their owner gave them.
    grantees AS (
        SELECT 0::oid AS grantee, 'PUBLIC' AS spelled
        UNION
        SELECT r.oid, quote_ident(r.rolname)
        FROM pg_roles AS r
        WHERE r.rolname IN ('anon', 'authenticated', 'service_role', reader)
            OR r.oid IN (
                SELECT unnest(y.polroles) FROM pg_policy AS y INNER JOIN objects AS o ON o.oid = y.polrelid
                WHERE y.polname = 'bisonsync_readers'
            )
    ),
    wanted AS (
        SELECT o.oid, '' AS col, r.oid AS grantee, w.privilege
        FROM objects AS o
        CROSS JOIN LATERAL unnest(o.service_privileges) AS w (privilege)
        INNER JOIN pg_roles AS r ON r.rolname = 'service_role'
        UNION
        SELECT o.oid, CASE w.col WHEN '*' THEN '' ELSE w.col END, r.oid, CASE o.kind WHEN 'FUNCTION' THEN 'EXECUTE' ELSE 'SELECT' END
        FROM objects AS o
        CROSS JOIN LATERAL unnest(o.reader_columns) AS w (col)
        INNER JOIN pg_roles AS r ON r.rolname = reader
    ),
    present AS (
        SELECT o.oid, '' AS col, a.grantee, a.privilege_type AS privilege
        FROM objects AS o
        CROSS JOIN LATERAL aclexplode(o.acl) AS a
        UNION
        SELECT o.oid, t.attname::text, a.grantee, a.privilege_type
        FROM objects AS o
        INNER JOIN pg_attribute AS t ON t.attrelid = o.oid AND NOT t.attisdropped
        CROSS JOIN LATERAL aclexplode(t.attacl) AS a
        WHERE o.kind = 'TABLE'
    ),
    changes AS (
        (SELECT 'REVOKE' AS verb, 'FROM' AS preposition, p.* FROM (TABLE present EXCEPT TABLE wanted) AS p)
        UNION ALL
        (SELECT 'GRANT', 'TO', p.* FROM (TABLE wanted EXCEPT TABLE present) AS p)
    )
    SELECT format(
        '%s %s ON %s %s %s %s',
        c.verb,
        string_agg(c.privilege || CASE c.col WHEN '' THEN '' ELSE format(' (%I)', c.col) END, ', ' ORDER BY c.privilege, c.col),
        o.kind, o.target, c.preposition, g.spelled
    )
    FROM changes AS c
    INNER JOIN objects AS o ON o.oid = c.oid AND o.owner <> c.grantee
    INNER JOIN grantees AS g ON g.grantee = c.grantee
    GROUP BY c.verb, c.preposition, o.kind, o.target, g.spelled
    ORDER BY c.verb DESC, o.target, g.spelled
$$;

COMMENT ON FUNCTION bisonsync_private.grant_changes(name) IS
    'The REVOKE and GRANT statements that are missing between what access_list() says and what this database grants, with that role as reader; none when all is right.';
