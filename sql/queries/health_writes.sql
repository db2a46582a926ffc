-- name: find_read_only
-- Why transactions of this session may only read: as a standby, or by default_transaction_read_only, and where that was
-- set (null where it is not the reason). No row where they may write; locks nothing.
SELECT
    pg_is_in_recovery() AS is_standby,
    CASE WHEN s.setting = 'on' THEN s.source END AS set_by,
    quote_ident(current_database()) AS database_name,
    quote_ident(session_user) AS role_name
FROM pg_settings AS s
WHERE s.name = 'default_transaction_read_only' AND current_setting('transaction_read_only') = 'on';

-- name: list_refused_changes
-- Our tables that the server refuses to change because of a publication, why, and what cures it; locks those it asks
-- about as an UPDATE does.
SELECT r.table_name, r.reason, r.cure
FROM bisonsync_private.refused_changes() AS r;
