/**
 * The verbs of the quota store, one function each: one round trip, and atomic.
 *
 * - A verb locks the row of its target first, so the verbs of a target run one after the other, and no two wait for each other.
 * - The clock is read after the lock, and each statement sees what was committed before it.
 */
export const quotaFunctions: ReadonlyArray<string> = [
  // Frees the calls at once of ids whose lease has ended: the id of the verb, and up to 16 others.
  `
CREATE FUNCTION sluice_quota_lapse(t text, i text, n bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  dead text;
  a jsonb;
BEGIN
  FOR dead IN
    DELETE FROM sluice_quota_holds WHERE target = t AND ends <= n AND (id = i OR id IN (
      SELECT id FROM sluice_quota_holds WHERE target = t AND ends <= n ORDER BY ends LIMIT 16
    )) RETURNING amounts
  LOOP
    FOR a IN SELECT value FROM jsonb_array_elements(dead::jsonb) WHERE (value ->> 2)::float8 = 0 LOOP
      UPDATE sluice_quota_sums SET used = used - (a ->> 5)::bigint WHERE target = t AND name = a ->> 0;
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

  // A sum, without the buckets that have left its window. It is not written.
  `
CREATE FUNCTION sluice_quota_sum(t text, sum text, length float8, width float8, n bigint)
RETURNS sluice_quota_sums LANGUAGE plpgsql AS $$
DECLARE
  s sluice_quota_sums;
  low bigint := CASE WHEN length > 0 THEN floor((n - length - 50) / width) ELSE 0 END;
  gone int;
BEGIN
  SELECT * INTO s FROM sluice_quota_sums WHERE target = t AND name = sum;
  IF NOT FOUND THEN RETURN ROW(t, sum, length, width, 0, low, '{}', 0)::sluice_quota_sums; END IF;
  IF s.oldest < low THEN
    gone := least(low - s.oldest, coalesce(array_length(s.buckets, 1), 0));
    s.used := s.used - coalesce((SELECT sum(amount) FROM unnest(s.buckets[1:gone]) AS amount), 0);
    s.buckets := s.buckets[gone + 1:];
    s.oldest := low;
  END IF;
  RETURN s;
END $$`,

  // Adds an amount that arrives at a time, and returns its bucket.
  `
CREATE FUNCTION sluice_quota_add(
  t text, sum text, length float8, width float8, n bigint, arrival float8, amount bigint, keep bigint
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
  s sluice_quota_sums := sluice_quota_sum(t, sum, length, width, n);
  bucket bigint;
  missing int;
BEGIN
  IF length > 0 THEN
    bucket := greatest(s.oldest, floor(arrival / width));
    missing := bucket - s.oldest + 1 - coalesce(array_length(s.buckets, 1), 0);
    IF missing > 0 THEN s.buckets := s.buckets || array_fill(0::bigint, ARRAY[missing]); END IF;
    s.buckets[bucket - s.oldest + 1] := s.buckets[bucket - s.oldest + 1] + amount;
  END IF;
  INSERT INTO sluice_quota_sums AS known
  VALUES (t, sum, length, width, s.used + amount, s.oldest, s.buckets, (n + keep) / 3600000 * 3600000 + 3600000)
  ON CONFLICT (target, name) DO UPDATE SET
    used = excluded.used, oldest = excluded.oldest, buckets = excluded.buckets,
    -- In whole hours. Otherwise each amount would write the index.
    expires = greatest(known.expires, excluded.expires);
  RETURN bucket;
END $$`,

  // An ask is an array of its sum, scope and dimension, window (-1: never ends), quantum, amount, least amount and limit (-1: none).
  // What an id holds is an array of sum, scope and dimension, window, quantum, bucket and amount, for each ask.
  `
CREATE FUNCTION sluice_quota_reserve(
  t text, i text, lease bigint, guard float8, keep bigint, durable boolean, asks jsonb,
  OUT ok boolean, OUT now float8, OUT wait float8, OUT blocked float8, OUT used float8[], OUT granted float8[], OUT learned text
) LANGUAGE plpgsql AS $$
DECLARE
  q sluice_quotas;
  s sluice_quota_sums;
  held jsonb;
  a jsonb;
  holds jsonb[] := '{}';
  nth int := 0;
  n bigint;
  length float8;
  width float8;
  amount bigint;
  smallest bigint;
  most float8;
  over float8;
  millis float8;
  bucket bigint;
BEGIN
  IF NOT durable THEN PERFORM set_config('synchronous_commit', 'off', true); END IF;
  q := sluice_quota_open(t, i, keep);
  n := q.latest;
  now := n;
  learned := q.learned;
  wait := 0;
  blocked := -1;
  SELECT amounts INTO held FROM sluice_quota_holds WHERE target = t AND id = i;
  FOR a IN SELECT value FROM jsonb_array_elements(asks) LOOP
    nth := nth + 1;
    length := a ->> 2;
    width := a ->> 3;
    amount := a ->> 4;
    smallest := a ->> 5;
    most := a ->> 6;
    s := sluice_quota_sum(t, a ->> 0, length, width, n);
    used[nth] := s.used;
    IF held IS NOT NULL THEN
      granted[nth] := coalesce((SELECT (h ->> 5)::float8 FROM jsonb_array_elements(held) AS h WHERE h ->> 0 = a ->> 0 LIMIT 1), 0);
      CONTINUE;
    END IF;
    over := CASE WHEN most < 0 THEN 0 WHEN smallest > most THEN s.used ELSE s.used + smallest - most END;
    granted[nth] := CASE
      WHEN over <= 0 AND most >= 0 AND s.used + amount > most THEN greatest(smallest, floor(most - s.used)) ELSE amount END;
    IF over > 0 THEN
      millis := 50;
      IF length > 0 THEN
        millis := length;
        FOR j IN 1..coalesce(array_length(s.buckets, 1), 0) LOOP
          over := over - s.buckets[j];
          IF over <= 0 THEN
            millis := greatest(1, ceil((s.oldest + j) * width + length + 50 - n));
            EXIT;
          END IF;
        END LOOP;
      END IF;
      IF millis > wait THEN
        wait := millis;
        blocked := nth - 1;
      END IF;
    END IF;
  END LOOP;
  ok := wait = 0;
  IF NOT ok THEN
    granted := array_fill(0::float8, ARRAY[nth]);
  ELSIF held IS NULL THEN
    nth := 0;
    FOR a IN SELECT value FROM jsonb_array_elements(asks) LOOP
      nth := nth + 1;
      length := a ->> 2;
      bucket := sluice_quota_add(
        t, a ->> 0, length, (a ->> 3)::float8, n, n + least(guard, length / 4), granted[nth]::bigint, keep
      );
      used[nth] := used[nth] + granted[nth];
      holds := holds || jsonb_build_array(a -> 0, a -> 1, a -> 2, a -> 3, bucket, granted[nth]::bigint);
    END LOOP;
    INSERT INTO sluice_quota_holds VALUES (t, i, n + lease, to_jsonb(holds));
  END IF;
END $$`,

  `
CREATE FUNCTION sluice_quota_settle(t text, i text, ago float8, keeps boolean, actual jsonb) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  q sluice_quotas;
  s sluice_quota_sums;
  held jsonb;
  a jsonb;
  kept jsonb[] := '{}';
  amount bigint;
  counted bigint;
  bucket bigint;
  moved bigint;
BEGIN
  -- A settlement that is lost in a crash leaves what was reserved, which is at least as much.
  PERFORM set_config('synchronous_commit', 'off', true);
  q := sluice_quota_open(t, i, NULL);
  SELECT amounts INTO held FROM sluice_quota_holds WHERE target = t AND id = i;
  IF held IS NULL THEN RETURN false; END IF;
  FOR a IN SELECT value FROM jsonb_array_elements(held) LOOP
    amount := a ->> 5;
    counted := coalesce((actual ->> (a ->> 1))::bigint, amount);
    IF (a ->> 2)::float8 = 0 THEN counted := CASE WHEN keeps THEN amount ELSE 0 END; END IF;
    bucket := a ->> 4;
    IF bucket IS NULL THEN
      UPDATE sluice_quota_sums SET used = used + counted - amount WHERE target = t AND name = a ->> 0 AND counted <> amount;
    ELSE
      SELECT * INTO s FROM sluice_quota_sums WHERE target = t AND name = a ->> 0;
      -- A bucket that has left the window takes no settlement.
      IF FOUND AND bucket >= s.oldest THEN
        moved := CASE WHEN keeps THEN bucket ELSE least(bucket, greatest(s.oldest, floor((q.latest - ago) / s.quantum))) END;
        IF moved <> bucket OR counted <> amount THEN
          s.buckets[bucket - s.oldest + 1] := s.buckets[bucket - s.oldest + 1] - amount;
          s.buckets[moved - s.oldest + 1] := s.buckets[moved - s.oldest + 1] + counted;
          UPDATE sluice_quota_sums SET used = s.used + counted - amount, buckets = s.buckets WHERE target = t AND name = a ->> 0;
        END IF;
      END IF;
    END IF;
    kept := kept || jsonb_set(a, '{5}', to_jsonb(counted));
  END LOOP;
  IF keeps THEN
    UPDATE sluice_quota_holds SET amounts = to_jsonb(kept) WHERE target = t AND id = i;
  ELSE
    DELETE FROM sluice_quota_holds WHERE target = t AND id = i;
  END IF;
  RETURN true;
END $$`,

  // Each ask ends with how long ago it arrived.
  `
CREATE FUNCTION sluice_quota_record(t text, keep bigint, durable boolean, asks jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n bigint;
  a jsonb;
  length float8;
  ago float8;
BEGIN
  IF NOT durable THEN PERFORM set_config('synchronous_commit', 'off', true); END IF;
  n := (sluice_quota_open(t, '', keep)).latest;
  FOR a IN SELECT value FROM jsonb_array_elements(asks) LOOP
    length := a ->> 2;
    ago := a ->> 7;
    -- An amount that has left its window is not counted.
    IF length <= 0 OR ago <= length THEN
      PERFORM sluice_quota_add(t, a ->> 0, length, (a ->> 3)::float8, n, n - ago, (a ->> 4)::bigint, keep);
    END IF;
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
  RETURN QUERY SELECT s.name, (sluice_quota_sum(t, s.name, s.span, s.quantum, n)).used::float8
  FROM sluice_quota_sums AS s WHERE s.target = t;
END $$`
]
