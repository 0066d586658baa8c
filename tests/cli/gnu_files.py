"""What GNU parallel 20221122 leaves behind, after one command line after the other: files and what is in them.

Joblogs (``log``) and tables are without times. ``-c`` is ours: GNU parallel always has a shell.
"""

from __future__ import annotations

Steps = list[list[str]]
Tree = dict[str, str | list[list[str]]]

CASES: list[tuple[Steps, Tree]] = [
    (
        [["--results", "R/{1}", "echo", "{}", ":::", "a", "b/x", ":::", "1"]],
        {"R/a": "a 1\n", "R/a.err": "", "R/a.seq": "1", "R/b/x": "b/x 1\n", "R/b/x.err": "", "R/b/x.seq": "2"},
    ),
    (
        [["--results", "R/{1}/", "echo", "{}", ":::", "a", "b/x", ":::", "1"]],
        {
            "R/a/seq": "1",
            "R/a/stderr": "",
            "R/a/stdout": "a 1\n",
            "R/b/x/seq": "2",
            "R/b/x/stderr": "",
            "R/b/x/stdout": "b/x 1\n",
        },
    ),
    (
        [["--results", "R/", "echo", "{}", ":::", "a", "b/x", ":::", "1"]],
        {
            "R/1/a/2/1/seq": "1",
            "R/1/a/2/1/stderr": "",
            "R/1/a/2/1/stdout": "a 1\n",
            "R/1/b\\_x/2/1/seq": "2",
            "R/1/b\\_x/2/1/stderr": "",
            "R/1/b\\_x/2/1/stdout": "b/x 1\n",
        },
    ),
    (
        [["--results", "{1/.}-{#}", "echo", "{}", ":::", "a", "b/x", ":::", "1"]],
        {"a-1": "a 1\n", "a-1.err": "", "a-1.seq": "1", "x-2": "b/x 1\n", "x-2.err": "", "x-2.seq": "2"},
    ),
    (
        [["--results", "R/{%}", "echo", "{}", ":::", "a", "b/x", ":::", "1"]],
        {"R/1": "b/x 1\n", "R/1.err": "", "R/1.seq": "2"},
    ),
    (
        [["--header", ":", "--results", "R/{m}/{n}", "echo", ":::", "n", "a", "b", ":::", "m", "1"]],
        {"R/1/a": "a 1\n", "R/1/a.err": "", "R/1/a.seq": "1", "R/1/b": "b 1\n", "R/1/b.err": "", "R/1/b.seq": "2"},
    ),
    (
        [["-N2", "--header", ":", "--results", "R", "echo", ":::", "n", "a", "b", ":::", "m", "1"]],
        {"R/m/1/n/a/m/1/n/b/seq": "1", "R/m/1/n/a/m/1/n/b/stderr": "", "R/m/1/n/a/m/1/n/b/stdout": "a 1 b 1\n"},
    ),
    (
        [["-N2", "--results", "R", "echo", ":::", "a", "b", "c"]],
        {
            "R/1/a/1/b/seq": "1",
            "R/1/a/1/b/stderr": "",
            "R/1/a/1/b/stdout": "a b\n",
            "R/1/c/seq": "2",
            "R/1/c/stderr": "",
            "R/1/c/stdout": "c\n",
        },
    ),
    (
        [["-N2", "--results", "R x/y{}", "echo", ":::", "a", "b", "c"]],
        {
            "R x/ya x/yb": "a b\n",
            "R x/ya x/yb.err": "",
            "R x/ya x/yb.seq": "1",
            "R x/yc": "c\n",
            "R x/yc.err": "",
            "R x/yc.seq": "2",
        },
    ),
    (
        [["-n2", "--results", "R/y{}", "echo", ":::", "a", "b", "c"]],
        {"R/ya b": "a b\n", "R/ya b.err": "", "R/ya b.seq": "1", "R/yc": "c\n", "R/yc.err": "", "R/yc.seq": "2"},
    ),
    (
        [["-N2", "--colsep", ",", "--results", "R", "echo", ":::", "a,b", "c", "d,e,f"]],
        {
            "R/1/a/2/b/1/c/seq": "1",
            "R/1/a/2/b/1/c/stderr": "",
            "R/1/a/2/b/1/c/stdout": "a b c\n",
            "R/1/d/2/e/3/f/seq": "2",
            "R/1/d/2/e/3/f/stderr": "",
            "R/1/d/2/e/3/f/stdout": "d e f\n",
        },
    ),
    (
        [["--colsep", ",", "--header", ":", "--results", "R", "echo", ":::", "m,2b", "a,b", "c", "d,e,f"]],
        {
            "R/m/a/2b/b/seq": "1",
            "R/m/a/2b/b/stderr": "",
            "R/m/a/2b/b/stdout": "a b\n",
            "R/m/c/seq": "2",
            "R/m/c/stderr": "",
            "R/m/c/stdout": "c\n",
            "R/m/d/2b/e/3/f/seq": "3",
            "R/m/d/2b/e/3/f/stderr": "",
            "R/m/d/2b/e/3/f/stdout": "d e f\n",
        },
    ),
    (
        [
            [
                "--header",
                ":",
                "--results",
                "R",
                "true",
                ":::",
                "10a",
                "A",
                ":::",
                "9",
                "B",
                ":::",
                "1.5",
                "C",
                ":::",
                "-2",
                "D",
                ":::",
                "x",
                "E",
            ]
        ],
        {
            "R/-2/D/x/E/1.5/C/9/B/10a/A/seq": "1",
            "R/-2/D/x/E/1.5/C/9/B/10a/A/stderr": "",
            "R/-2/D/x/E/1.5/C/9/B/10a/A/stdout": "",
        },
    ),
    (
        [["--header", "0", "--results", "R/{in}", "echo", "{cols.}", "::::", "in", "::::+", "cols"]],
        {
            "R/a": "my col\n",
            "R/a.err": "",
            "R/a.seq": "1",
            "R/b": "b\n",
            "R/b.err": "",
            "R/b.seq": "3",
            "R/seq": "2",
            "R/stderr": "",
            "R/stdout": "a\n",
        },
    ),
    (
        [["--results", "R", "echo", ":::", "a\tb", "c\\d"]],
        {
            "R/1/a\\tb/seq": "1",
            "R/1/a\\tb/stderr": "",
            "R/1/a\\tb/stdout": "a\tb\n",
            "R/1/c\\\\d/seq": "2",
            "R/1/c\\\\d/stderr": "",
            "R/1/c\\\\d/stdout": "c\\d\n",
        },
    ),
    (
        [["--results", "R.csv", "--tag", "-c", "echo {}; echo e >&2; exit {1}", ":::", "0", "3"]],
        {
            "R.csv": [
                ["Seq", "Host", "Send", "Receive", "Exitval", "Signal", "Command", "V1", "Stdout", "Stderr"],
                ["1", ":", "0", "2", "0", "0", "echo 0; echo e >&2; exit 0", "0", "0\t0\n", "0\te\n"],
                ["2", ":", "0", "2", "3", "0", "echo 3; echo e >&2; exit 3", "3", "3\t3\n", "3\te\n"],
            ]
        },
    ),
    (
        [["--results", "X-{1}.TSV", "--tagstring", "{#}", "-c", "echo {}; echo e >&2; exit {1}", ":::", "0", "3"]],
        {
            "X-{1}.TSV": [
                ["Seq", "Host", "Send", "Receive", "Exitval", "Signal", "Command", "V1", "Stdout", "Stderr"],
                ["1", ":", "0", "2", "0", "0", "echo 0; echo e >&2; exit 0", "0", "1\t0\n", "1\te\n"],
                ["2", ":", "0", "2", "3", "0", "echo 3; echo e >&2; exit 3", "3", "2\t3\n", "2\te\n"],
            ]
        },
    ),
    (
        [["--results", "R.json", "-N2", "--tag", "-c", "echo é{}", ":::", "a b", "\t", '"c']],
        {
            "R.json": [
                ["Seq", "1"],
                ["Host", ":"],
                ["Send", "0"],
                ["Receive", "10"],
                ["Exitval", "0"],
                ["Signal", "0"],
                ["Command", "echo é'a b' é'\t'"],
                ["V", "['a b', '\\t']"],
                ["Stdout", "a b \t\téa b é\t\n"],
                ["Stderr", ""],
                ["Seq", "2"],
                ["Host", ":"],
                ["Send", "0"],
                ["Receive", "5"],
                ["Exitval", "0"],
                ["Signal", "0"],
                ["Command", "echo é'\"c'"],
                ["V", "['\"c']"],
                ["Stdout", '"c\té"c\n'],
                ["Stderr", ""],
            ]
        },
    ),
    (
        [
            ["--results", "R.csv", "-c", "echo é{}", ":::", "a b"],
            ["--results", "R.csv", "-c", "echo é{}", ":::", "b,c"],
        ],
        {
            "R.csv": [
                ["Seq", "Host", "Send", "Receive", "Exitval", "Signal", "Command", "V1", "Stdout", "Stderr"],
                ["1", ":", "0", "6", "0", "0", "echo é'b,c'", "b,c", "éb,c\n", ""],
            ]
        },
    ),
    (
        [
            ["--results", "R", "-c", "echo {}; echo e >&2; exit {1}", ":::", "0", "3"],
            ["--resume", "--results", "R", "-c", "echo again {}; exit {1}", ":::", "0", "3", "4"],
        ],
        {
            "R/1/0/seq": "1",
            "R/1/0/stderr": "e\n",
            "R/1/0/stdout": "0\n",
            "R/1/3/seq": "2",
            "R/1/3/stderr": "e\n",
            "R/1/3/stdout": "3\n",
            "R/1/4/seq": "3",
            "R/1/4/stderr": "",
            "R/1/4/stdout": "again 4\n",
        },
    ),
    (
        [
            ["--results", "R/{}", "-c", "echo {}; echo e >&2; exit {1}", ":::", "0", "3"],
            ["--resume", "--results", "R/{}", "-c", "echo again {}; exit {1}", ":::", "0", "3", "4"],
        ],
        {
            "R/0": "0\n",
            "R/0.err": "e\n",
            "R/0.seq": "1",
            "R/3": "3\n",
            "R/3.err": "e\n",
            "R/3.seq": "2",
            "R/4": "again 4\n",
            "R/4.err": "",
            "R/4.seq": "3",
        },
    ),
    (
        [
            ["--results", "R/{}/", "-c", "echo {}; echo e >&2; exit {1}", ":::", "0", "3"],
            ["--resume", "--results", "R/{}/", "-c", "echo again {}; exit {1}", ":::", "0", "3", "4"],
        ],
        {
            "R/0/seq": "1",
            "R/0/stderr": "e\n",
            "R/0/stdout": "0\n",
            "R/3/seq": "2",
            "R/3/stderr": "e\n",
            "R/3/stdout": "3\n",
            "R/4/seq": "3",
            "R/4/stderr": "",
            "R/4/stdout": "again 4\n",
        },
    ),
    (
        [
            ["-N2", "--results", "R", "echo", ":::", "a", "b"],
            ["--resume", "-N2", "--results", "R", "echo", "x{}", ":::", "a", "b", "c"],
        ],
        {
            "R/1/a/1/b/seq": "1",
            "R/1/a/1/b/stderr": "",
            "R/1/a/1/b/stdout": "a b\n",
            "R/1/c/seq": "2",
            "R/1/c/stderr": "",
            "R/1/c/stdout": "xc\n",
        },
    ),
    (
        [
            ["--joblog", "log", "--results", "R", "-c", "echo {}; echo e >&2; exit {1}", ":::", "0", "3"],
            [
                "--resume-failed",
                "--joblog",
                "log",
                "--results",
                "R",
                "-c",
                "echo {}; echo e >&2; exit {1}",
                ":::",
                "0",
                "3",
            ],
        ],
        {
            "R/1/0/seq": "1",
            "R/1/0/stderr": "e\n",
            "R/1/0/stdout": "0\n",
            "R/1/3/seq": "2",
            "R/1/3/stderr": "e\n",
            "R/1/3/stdout": "3\n",
            "log": [
                ["Seq", "Host", "Send", "Receive", "Exitval", "Signal", "Command"],
                ["1", ":", "0", "2", "0", "0", "echo 0; echo e >&2; exit 0"],
                ["2", ":", "0", "2", "3", "0", "echo 3; echo e >&2; exit 3"],
                ["2", ":", "0", "2", "3", "0", "echo 3; echo e >&2; exit 3"],
            ],
        },
    ),
    (
        [
            ["--joblog", "log", "-c", "echo {}; echo e >&2; exit {1}", ":::", "0", "3"],
            ["--joblog", "+log", "-c", "echo {}; echo e >&2; exit {1}", ":::", "0", "3"],
        ],
        {
            "log": [
                ["Seq", "Host", "Send", "Receive", "Exitval", "Signal", "Command"],
                ["1", ":", "0", "2", "0", "0", "echo 0; echo e >&2; exit 0"],
                ["2", ":", "0", "2", "3", "0", "echo 3; echo e >&2; exit 3"],
                ["1", ":", "0", "2", "0", "0", "echo 0; echo e >&2; exit 0"],
                ["2", ":", "0", "2", "3", "0", "echo 3; echo e >&2; exit 3"],
            ]
        },
    ),
    (
        [
            ["--joblog", "log", "-c", "echo {}; echo e >&2; exit {1}", ":::", "0", "3"],
            ["--resume-failed", "--joblog", "+log", "-c", "echo {}; echo e >&2; exit {1}", ":::", "0", "3"],
        ],
        {
            "log": [
                ["Seq", "Host", "Send", "Receive", "Exitval", "Signal", "Command"],
                ["1", ":", "0", "2", "0", "0", "echo 0; echo e >&2; exit 0"],
                ["2", ":", "0", "2", "3", "0", "echo 3; echo e >&2; exit 3"],
                ["2", ":", "0", "2", "3", "0", "echo 3; echo e >&2; exit 3"],
            ]
        },
    ),
    (
        [
            ["--joblog", "log", "-c", "echo {}; echo e >&2; exit {1}", ":::", "0", "3"],
            ["--retry-failed", "--jl", "+log"],
        ],
        {
            "log": [
                ["Seq", "Host", "Send", "Receive", "Exitval", "Signal", "Command"],
                ["1", ":", "0", "2", "0", "0", "echo 0; echo e >&2; exit 0"],
                ["2", ":", "0", "2", "3", "0", "echo 3; echo e >&2; exit 3"],
                ["2", ":", "0", "2", "3", "0", "echo 3; echo e >&2; exit 3"],
            ]
        },
    ),
    (
        [["--joblog", "log", "--results", "R.tsv", "--retries", "2", "-c", "echo {}; kill -9 $$", ":::", "a"]],
        {
            "R.tsv": [
                ["Seq", "Host", "Send", "Receive", "Exitval", "Signal", "Command", "V1", "Stdout", "Stderr"],
                ["1", ":", "0", "2", "0", "9", "echo a; kill -9 $$", "a", "a\n", ""],
            ],
            "log": [
                ["Seq", "Host", "Send", "Receive", "Exitval", "Signal", "Command"],
                ["1", ":", "0", "2", "0", "9", "echo a; kill -9 $$"],
            ],
        },
    ),
]
