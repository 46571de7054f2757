"""DIR OTHER: one database in memory and one in DIR go through the same; a file that is sorted on disk; a killed writer."""
import os, subprocess, sys
import duckdb

WRITER = """
import duckdb
c = duckdb.connect("killed")
c.execute("create table t (i int)")
for i in range(100000):
    c.execute(f"insert into t values ({i})")
    print(i, flush=True)
"""
SUMS = "select count(*), sum(i), bit_xor(h), sum(g), sum(length(s)) from t"

here, other = sys.argv[1:]
os.makedirs(here)
os.chdir(here)


def fill(c):
    row = "i, hash(i) h, (i % 1000)::int g, 'row ' || i s"
    c.execute(f"create table t as select {row} from range(2000000) r(i)")
    for k in range(10):
        new = 2000000 + k * 1000
        c.execute(f"begin; update t set g = g + 1 where i % 10 = {k}; delete from t where i % 1000 = {k};"
                  f"insert into t select {row} from range({new}, {new + 1000}) r(i); commit")


def check(c, what):
    found = c.execute(SUMS).fetchall()
    assert found == want, f"{what}: {found}, not {want}"


memory = duckdb.connect()
fill(memory)
want = memory.execute(SUMS).fetchall()
c = duckdb.connect("data")
c.execute(f"set memory_limit = '300MB'; set temp_directory = '{here}/tmp'")
fill(c)
c.execute("checkpoint")
check(c, "the database")
c.execute("copy t to 't.parquet'")
c.execute("create table sorted as select * from t order by h")
out_of_order = "select count(*) from (select h, lag(h) over (order by rowid) before from sorted) where before > h"
assert c.execute(out_of_order).fetchall() == [(0,)], "not in order"
second = subprocess.run([sys.executable, "-c", "import duckdb, sys; duckdb.connect(sys.argv[1])", f"{other}/data"],
                        capture_output=True, text=True)
assert second.returncode != 0 and "lock" in second.stderr, f"a second writer gets in: {second.stderr}"
c.close()
check(duckdb.connect(f"{other}/data", read_only=True), "the database on the other mount")
parquet = duckdb.connect()
parquet.execute(f"create view t as from '{other}/t.parquet'")
check(parquet, "the parquet file on the other mount")

writer = subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE, text=True)
for line in writer.stdout:
    if int(line) == 300:
        writer.kill()
said = 300 + len([line for line in writer.stdout if line.endswith("\n")])
writer.wait()
kept = duckdb.connect("killed").execute("select count(*), max(i) from t").fetchall()[0]
assert kept[0] == kept[1] + 1 and kept[0] > said, f"{said} were told, {kept} are there"
