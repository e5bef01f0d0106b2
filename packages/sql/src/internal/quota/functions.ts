/**
 * The verbs of the quota store, one function each: one round trip, and atomic.
 *
 * - A verb locks the row of its target first, so the verbs of a target run one after the other and cannot deadlock.
 * - The clock is read after the lock, and each statement sees what was committed before it.
 */
export const quotaFunctions: ReadonlyArray<string> = [
  // Frees the calls at once of ids whose lease has ended: the id of the verb, and up to 16 others.
  `
CREATE FUNCTION sluice_quota_lapse(t text, i text, n bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  dead jsonb;
  held record;
BEGIN
  FOR dead IN
    DELETE FROM sluice_quota_holds WHERE target = t AND ends <= n AND (id = i OR id IN (
      SELECT id FROM sluice_quota_holds WHERE target = t AND ends <= n ORDER BY ends LIMIT 16
    )) RETURNING amounts
  LOOP
    FOR held IN SELECT * FROM jsonb_to_recordset(dead) AS h(name text, span float8, amount bigint) WHERE h.span = 0 LOOP
      UPDATE sluice_quota_sums SET used = used - held.amount WHERE target = t AND name = held.name;
    END LOOP;
  END LOOP;
END $$`,

  // Locks a target, and makes it if keep is not null. Its latest time becomes the present. If the clock was set back, time continues
  // from the latest time that was written, which is once a second. Otherwise amounts would stay in their windows, and leases alive,
  // for as long as the clock was set back.
  `
CREATE FUNCTION sluice_quota_open(t text, i text, keep bigint) RETURNS sluice_quotas LANGUAGE plpgsql AS $$
DECLARE
  q sluice_quotas;
  n bigint;
BEGIN
  LOOP
    SELECT * INTO q FROM sluice_quotas WHERE target = t FOR NO KEY UPDATE;
    EXIT WHEN FOUND OR keep IS NULL;
    INSERT INTO sluice_quotas VALUES (t, 0, 0, '{}', 0) ON CONFLICT DO NOTHING;
  END LOOP;
  IF q.target IS NULL THEN RETURN q; END IF;
  n := sluice_micros() / 1000 + q.behind;
  IF n < q.latest OR n >= q.latest + 1000 OR q.expires < n + keep THEN
    q.behind := q.behind + greatest(0, q.latest - n);
    n := greatest(n, q.latest);
    UPDATE sluice_quotas SET latest = n, behind = q.behind, expires = greatest(expires, n + keep + keep / 2)
    WHERE target = t;
    DELETE FROM sluice_quota_sums WHERE target = t AND expires < n;
    PERFORM sluice_quota_clean(n);
  END IF;
  q.latest := n;
  PERFORM sluice_quota_lapse(t, i, n);
  RETURN q;
END $$`,

  // Deletes a few targets that have expired. Skips those that others use.
  `
CREATE FUNCTION sluice_quota_clean(n bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  gone text[];
BEGIN
  WITH deleted AS (
    DELETE FROM sluice_quotas WHERE target IN (
      SELECT target FROM sluice_quotas WHERE expires < n LIMIT 5 FOR UPDATE SKIP LOCKED
    ) RETURNING target
  ) SELECT array_agg(target) INTO gone FROM deleted;
  IF gone IS NOT NULL THEN
    DELETE FROM sluice_quota_sums WHERE target = ANY(gone);
    DELETE FROM sluice_quota_holds WHERE target = ANY(gone);
  END IF;
END $$`,

  // A row without the buckets that have left its window. A missing row becomes an empty one. It is not written.
  `
CREATE FUNCTION sluice_quota_trim(s sluice_quota_sums, t text, sum text, length float8, width float8, n bigint)
RETURNS sluice_quota_sums LANGUAGE plpgsql AS $$
DECLARE
  low bigint := CASE WHEN length > 0 THEN floor((n - length - 50) / width) ELSE 0 END;
  gone int;
BEGIN
  IF s.target IS NULL THEN RETURN ROW(t, sum, length, width, 0, low, '{}', 0)::sluice_quota_sums; END IF;
  IF s.oldest < low THEN
    gone := least(low - s.oldest, coalesce(array_length(s.buckets, 1), 0));
    s.used := s.used - coalesce((SELECT sum(amount) FROM unnest(s.buckets[1:gone]) AS amount), 0);
    s.buckets := s.buckets[gone + 1:];
    s.oldest := low;
  END IF;
  RETURN s;
END $$`,

  // Adds an amount to a row that is trimmed. The bucket is null without a window. It is not written.
  `
CREATE FUNCTION sluice_quota_add(s sluice_quota_sums, bucket bigint, amount bigint, until bigint) RETURNS sluice_quota_sums
LANGUAGE plpgsql AS $$
DECLARE
  missing int;
BEGIN
  IF bucket IS NOT NULL THEN
    missing := bucket - s.oldest + 1 - coalesce(array_length(s.buckets, 1), 0);
    IF missing > 0 THEN s.buckets := s.buckets || array_fill(0::bigint, ARRAY[missing]); END IF;
    s.buckets[bucket - s.oldest + 1] := s.buckets[bucket - s.oldest + 1] + amount;
  END IF;
  s.used := s.used + amount;
  -- In whole hours. Otherwise each amount would write the index.
  s.expires := greatest(s.expires, until / 3600000 * 3600000 + 3600000);
  RETURN s;
END $$`,

  `
CREATE FUNCTION sluice_quota_write(sums sluice_quota_sums[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO sluice_quota_sums SELECT * FROM unnest(sums)
  ON CONFLICT (target, name) DO UPDATE SET
    used = excluded.used, oldest = excluded.oldest, buckets = excluded.buckets, expires = excluded.expires
$$`,

  `
CREATE FUNCTION sluice_quota_reserve(
  t text, i text, lease bigint, guard float8, keep bigint, durable boolean, asks jsonb,
  OUT ok boolean, OUT now float8, OUT wait float8, OUT blocked float8, OUT used float8[], OUT granted float8[], OUT learned text
) LANGUAGE plpgsql AS $$
DECLARE
  q sluice_quotas;
  held jsonb;
  a record;
  s sluice_quota_sums;
  sums sluice_quota_sums[] := '{}';
  holds jsonb := '[]';
  nth int := 0;
  n bigint;
  over float8;
  millis float8;
  bucket bigint;
  share bigint;
BEGIN
  IF NOT durable THEN PERFORM set_config('synchronous_commit', 'off', true); END IF;
  q := sluice_quota_open(t, i, keep);
  n := q.latest;
  now := n;
  learned := q.learned;
  wait := 0;
  blocked := -1;
  SELECT amounts INTO held FROM sluice_quota_holds WHERE target = t AND id = i;
  FOR a IN
    SELECT ask.*, known FROM ROWS FROM (jsonb_to_recordset(asks) AS (
      name text, address text, span float8, quantum float8, amount bigint, least bigint, "limit" float8
    )) WITH ORDINALITY AS ask
    LEFT JOIN sluice_quota_sums AS known ON known.target = t AND known.name = ask.name
    ORDER BY ask.ordinality
  LOOP
    nth := nth + 1;
    s := sluice_quota_trim(a.known, t, a.name, a.span, a.quantum, n);
    used[nth] := s.used;
    IF held IS NOT NULL THEN
      granted[nth] := coalesce(
        (SELECT h.amount FROM jsonb_to_recordset(held) AS h(name text, amount float8) WHERE h.name = a.name LIMIT 1), 0
      );
      CONTINUE;
    END IF;
    over := CASE WHEN a."limit" < 0 THEN 0 WHEN a.least > a."limit" THEN s.used ELSE s.used + a.least - a."limit" END;
    IF over > 0 THEN
      millis := 50;
      IF a.span > 0 THEN
        millis := a.span;
        FOR j IN 1..coalesce(array_length(s.buckets, 1), 0) LOOP
          over := over - s.buckets[j];
          IF over <= 0 THEN
            millis := greatest(1, ceil((s.oldest + j) * a.quantum + a.span + 50 - n));
            EXIT;
          END IF;
        END LOOP;
      END IF;
      IF millis > wait THEN
        wait := millis;
        blocked := nth - 1;
      END IF;
    ELSIF wait = 0 THEN
      share := a.amount;
      IF a."limit" >= 0 AND s.used + share > a."limit" THEN share := greatest(a.least, floor(a."limit" - s.used)); END IF;
      bucket := CASE WHEN a.span > 0 THEN floor((n + least(guard, a.span / 4)) / a.quantum) END;
      granted[nth] := share;
      sums := sums || sluice_quota_add(s, bucket, share, n + keep);
      holds := holds || jsonb_build_object(
        'name', a.name, 'address', a.address, 'span', a.span, 'quantum', a.quantum, 'bucket', bucket, 'amount', share
      );
    END IF;
  END LOOP;
  ok := wait = 0;
  IF NOT ok THEN
    granted := array_fill(0::float8, ARRAY[nth]);
  ELSIF held IS NULL THEN
    FOR k IN 1..nth LOOP used[k] := used[k] + granted[k]; END LOOP;
    PERFORM sluice_quota_write(sums);
    INSERT INTO sluice_quota_holds VALUES (t, i, n + lease, holds);
  END IF;
END $$`,

  `
CREATE FUNCTION sluice_quota_settle(t text, i text, ago float8, keeps boolean, actual jsonb) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  q sluice_quotas;
  held jsonb;
  a record;
  s sluice_quota_sums;
  sums sluice_quota_sums[] := '{}';
  left_over jsonb := '[]';
  counted bigint;
  moved bigint;
BEGIN
  -- A settlement that is lost in a crash leaves what was reserved, which is at least as much.
  PERFORM set_config('synchronous_commit', 'off', true);
  q := sluice_quota_open(t, i, NULL);
  SELECT amounts INTO held FROM sluice_quota_holds WHERE target = t AND id = i;
  IF held IS NULL THEN RETURN false; END IF;
  FOR a IN
    SELECT h.*, known FROM jsonb_to_recordset(held) AS h(
      name text, address text, span float8, quantum float8, bucket bigint, amount bigint
    )
    LEFT JOIN sluice_quota_sums AS known ON known.target = t AND known.name = h.name
  LOOP
    s := a.known;
    counted := CASE
      WHEN a.span <> 0 THEN coalesce((actual ->> a.address)::bigint, a.amount)
      WHEN keeps THEN a.amount
      ELSE 0 END;
    -- A bucket that has left the window takes no settlement.
    IF s.target IS NOT NULL AND (a.bucket IS NULL OR a.bucket >= s.oldest) THEN
      s.used := s.used + counted - a.amount;
      moved := CASE WHEN keeps THEN a.bucket ELSE least(a.bucket, greatest(s.oldest, floor((q.latest - ago) / s.quantum))) END;
      IF a.bucket IS NOT NULL AND (moved <> a.bucket OR counted <> a.amount) THEN
        s.buckets[a.bucket - s.oldest + 1] := s.buckets[a.bucket - s.oldest + 1] - a.amount;
        s.buckets[moved - s.oldest + 1] := s.buckets[moved - s.oldest + 1] + counted;
      END IF;
      sums := sums || s;
    END IF;
    IF keeps THEN
      left_over := left_over || jsonb_build_object('name', a.name, 'address', a.address, 'span', a.span,
        'quantum', a.quantum, 'bucket', a.bucket, 'amount', counted);
    END IF;
  END LOOP;
  PERFORM sluice_quota_write(sums);
  IF keeps THEN
    UPDATE sluice_quota_holds SET amounts = left_over WHERE target = t AND id = i;
  ELSE
    DELETE FROM sluice_quota_holds WHERE target = t AND id = i;
  END IF;
  RETURN true;
END $$`,

  `
CREATE FUNCTION sluice_quota_record(t text, keep bigint, durable boolean, asks jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
  a record;
  s sluice_quota_sums;
BEGIN
  IF NOT durable THEN PERFORM set_config('synchronous_commit', 'off', true); END IF;
  n := (sluice_quota_open(t, '', keep)).latest;
  FOR a IN
    SELECT * FROM jsonb_to_recordset(asks) AS ask(
      name text, span float8, quantum float8, amount bigint, "agoMillis" float8
    )
    -- An amount that has left its window is not counted.
    WHERE ask.span <= 0 OR ask."agoMillis" <= ask.span
  LOOP
    SELECT * INTO s FROM sluice_quota_sums WHERE target = t AND name = a.name;
    s := sluice_quota_trim(s, t, a.name, a.span, a.quantum, n);
    PERFORM sluice_quota_write(ARRAY[sluice_quota_add(
      s,
      CASE WHEN a.span > 0 THEN greatest(s.oldest, floor((n - a."agoMillis") / a.quantum)) END::bigint,
      a.amount,
      n + keep
    )]);
  END LOOP;
END $$`,

  `
CREATE FUNCTION sluice_quota_renew(t text, ids jsonb, lease bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n bigint := (sluice_quota_open(t, '', NULL)).latest;
BEGIN
  UPDATE sluice_quota_holds SET ends = n + lease WHERE target = t AND id IN (SELECT jsonb_array_elements_text(ids));
END $$`,

  // A learned limit is an array of the limit (-1: none), when it was set, and the end of the rest, by dimension.
  `
CREATE FUNCTION sluice_quota_limit(
  t text, name text, seen float8, rest float8, keep bigint, OUT most float8, OUT age float8, OUT rests float8
) LANGUAGE plpgsql AS $$
DECLARE
  writes boolean := seen >= 0 OR rest >= 0;
  q sluice_quotas := sluice_quota_open(t, '', CASE WHEN writes THEN keep END);
  known jsonb := q.learned::jsonb -> name;
  set_at float8 := coalesce((known ->> 1)::float8, q.latest);
  rest_until float8 := coalesce((known ->> 2)::float8, 0);
BEGIN
  most := coalesce((known ->> 0)::float8, -1);
  IF seen >= 0 THEN
    most := seen;
    set_at := q.latest;
  END IF;
  IF rest >= 0 THEN rest_until := greatest(rest_until, q.latest + rest); END IF;
  IF writes THEN
    UPDATE sluice_quotas
    SET learned = q.learned::jsonb || jsonb_build_object(name, jsonb_build_array(most, set_at, rest_until)), latest = q.latest
    WHERE target = t;
  END IF;
  age := CASE WHEN most < 0 THEN 0 ELSE q.latest - set_at END;
  rests := greatest(0, rest_until - q.latest);
END $$`,

  `
CREATE FUNCTION sluice_quota_read(t text, OUT name text, OUT used float8) RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
  n bigint := (sluice_quota_open(t, '', NULL)).latest;
BEGIN
  RETURN QUERY SELECT s.name, (sluice_quota_trim(s, t, s.name, s.span, s.quantum, n)).used::float8
  FROM sluice_quota_sums AS s WHERE s.target = t;
END $$`
]
