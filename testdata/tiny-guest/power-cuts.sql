-- Says in one line what PowerCutTests' database holds, for guest and host: DATABASE INTEGRITY COUNT FIRST NEWEST LAST BALANCE WRONG, which are the
-- transactions, the number that the newest one left in another table, the sum that is 0 after each, and the rows that are not what was inserted.
PRAGMA synchronous=EXTRA;
CREATE TABLE IF NOT EXISTS tx (n INTEGER PRIMARY KEY, body TEXT);
CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, balance INTEGER, last INTEGER);
SELECT 'DATABASE ' || (SELECT group_concat(integrity_check, ' ') FROM pragma_integrity_check) || ' ' || count(*) || ' ' || ifnull(min(n), 1) || ' '
  || ifnull(max(n), 0) || ' ' || (SELECT ifnull(max(last), 0) || ' ' || ifnull(sum(balance), 0) FROM account) || ' '
  || ifnull(sum(body <> printf('%d-%.*c', n, 500 + n * 7919 % 6000, char(65 + n % 26))), 0) FROM tx;
