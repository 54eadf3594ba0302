"""For each promise of docs/guarantees.md, code that keeps it, and a test that fails when that is taken out.

``python -m tests.harness.taken_out [PROMISE…]`` takes each out, of a copy, and runs its test; one that passes is an
error. So is one that fails anyway, which is tried first. The tests have their small size.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "exporter" / "patrolserver_exporter"
_TESTS_FAILED = 1
"""What pytest ends with then; a test that cannot be collected is another number."""


class TakenOut(NamedTuple):
    """What is done to one module, and who notices."""

    promise: str
    module: str
    """Its path below the package."""
    code: str
    """Stands there once."""
    without: str
    """What takes its place."""
    test: str
    """As pytest names it."""

    def text(self) -> str:
        """The module without the code."""
        whole = (PACKAGE / self.module).read_text("utf-8")
        if whole.count(self.code) != 1:
            raise ValueError(f"{self.module} has this {whole.count(self.code)} times, and not once: {self.code}")
        return whole.replace(self.code, self.without)


TABLE = (
    TakenOut(
        "kill",
        "sync/restore.py",
        "summaries.append(record.summary)",
        "pass",
        "tests/faults/test_kill.py::test_after_a_kill_the_same_series_are_back_without_a_poll",
    ),
    TakenOut(
        "never-resent",
        "issues/merge.py",
        "return started_at >= (issue.last_seen if reported_at is None else reported_at) + settle",
        "return False",
        "tests/faults/test_kill.py::test_a_burst_with_kills_loses_nothing_and_doubles_nothing",
    ),
    TakenOut(
        "stop",
        "app/reload.py",
        "self._telemetry.config_failed()",
        "pass",
        "tests/faults/test_stop_and_reload.py::test_a_reload_takes_a_good_file_and_refuses_a_bad_one",
    ),
    TakenOut(
        "power-loss",
        "store/engines.py",
        '"synchronous=FULL"',
        '"synchronous=OFF"',
        "tests/faults/test_sync.py",
    ),
    TakenOut(
        "one-writer",
        "store/engines.py",
        '"query_only=ON", ',
        "",
        "tests/integration/store/test_database.py",
    ),
    TakenOut(
        "one-writer",
        "store/guard.py",
        "?mode=ro",
        "?mode=rw",
        "tests/integration/store/test_database.py",
    ),
    TakenOut(
        "disk-full",
        "web/webhook.py",
        "except (StoreError, TimeoutError):",
        "except TimeoutError:",
        "tests/faults/test_disk_full.py",
    ),
    TakenOut(
        "store-away",
        "inbox/intake.py",
        "asyncio.timeout(STORE_TIMEOUT)",
        "asyncio.timeout(None)",
        "tests/faults/test_database_gone.py::test_a_silent_database_holds_up_no_sender",
    ),
    TakenOut(
        "second-exporter",
        "store/lease.py",
        "by_force=not self._runs_out",
        "by_force=True",
        "tests/integration/store/test_lease.py::test_a_second_store_is_refused_while_the_first_one_lives",
    ),
    TakenOut(
        "replicas",
        "store/lease.py",
        "self._taken_in = position.versions.get(self._intake, 0)",
        "pass",
        "tests/faults/test_replicas_database.py::test_a_standby_without_the_last_commits_is_promoted",
    ),
    TakenOut(
        "late-database",
        "commands/serve.py",
        "if not await database_answers(loaded.config.store.url, Supervisor(options.environ)):",
        "if False:",
        "tests/faults/test_late_database.py::test_the_start_waits_for_a_database_and_tells_systemd",
    ),
    TakenOut(
        "corrupt",
        "store/guard.py",
        "    files.check_sum(database)\n",
        "    files.forget_sum(database)\n",
        "tests/faults/test_corrupt.py::test_no_flipped_bit_passes_after_a_clean_stop",
    ),
    TakenOut(
        "corrupt",
        "store/guard.py",
        "    if commits is not None:\n",
        "    if False:\n",
        "tests/faults/test_corrupt.py::test_what_is_missing_after_a_kill_is_found",
    ),
    TakenOut(
        "one-file",
        "store/files.py",
        "return error.errno not in {errno.EACCES, errno.EAGAIN}",
        "return True",
        "tests/faults/test_one_file.py::test_a_second_process_is_refused",
    ),
    TakenOut(
        "late-worker",
        "inbox/deliveries.py",
        ".where(inbox.c.id == delivery.id, inbox.c.claim == delivery.claim, ",
        ".where(inbox.c.id == delivery.id, ",
        "tests/unit/inbox/test_deliveries.py::test_a_late_worker_writes_nothing",
    ),
    TakenOut(
        "clock",
        "inbox/retry.py",
        "if old and attempts >= EXPIRY_TRIES:",
        "if old:",
        "tests/faults/test_clock.py::test_a_jump_expires_no_event",
    ),
    TakenOut(
        "forged",
        "sync/worker.py",
        "while granted < self._free and budget.try_take():",
        "while granted < self._free:",
        "tests/faults/test_forged.py",
    ),
    TakenOut(
        "slow-clients",
        "web/http/protocol.py",
        "elif self._reading is _Reading.HEADERS and now - self._since >= timeouts.header:",
        "elif False:",
        "tests/faults/test_slow_clients.py",
    ),
    TakenOut(
        "attack-tools",
        "web/http/tls.py",
        "names or web_config.SAFE",
        "names or tuple(web_config.TLS12.values())",
        "tests/faults/test_attack_tools.py::test_testssl_finds_nothing",
    ),
    TakenOut(
        "readers",
        "commands/serve.py",
        "sys.setswitchinterval(SWITCH_INTERVAL)",
        "pass",
        "tests/faults/test_readers.py::test_who_computes_gives_way_soon",
    ),
    TakenOut(
        "large-body",
        "web/http/requests.py",
        "        if len(body) > limit:\n",
        "        if False:\n",
        "tests/faults/test_bad_deliveries.py::test_the_door_says_no_with_the_status_that_fits",
    ),
    TakenOut(
        "bad-input",
        "web/webhook.py",
        "except (BodyError, UnreadableDelivery) as error:",
        "except BodyError as error:",
        "tests/faults/test_bad_deliveries.py::test_any_body_is_taken_or_refused_with_a_reason",
    ),
    TakenOut(
        "odd-names",
        "patrolserver/values.py",
        "if not text.isprintable():",
        "if False:",
        "tests/faults/test_odd_names.py::test_odd_names_never_break_a_scrape",
    ),
    TakenOut(
        "cardinality",
        "issues/summary.py",
        "software_info=tuple(sorted(infos[:software_limit_per_server])),",
        "software_info=tuple(sorted(infos)),",
        "tests/faults/test_odd_names.py::test_a_bomb_of_software_is_capped_and_counted",
    ),
    TakenOut(
        "upstream",
        "sync/health.py",
        "            self.trouble = Trouble.UNREACHABLE\n",
        "            self.trouble = Trouble.NONE\n",
        "tests/faults/test_upstream.py::test_each_failure_leaves_old_values_marked_and_passes",
    ),
    TakenOut(
        "unfolding",
        "patrolserver/stream.py",
        "if self._entries > self._max_entries:",
        "if False:",
        "tests/faults/test_unfolding.py::test_replies_that_unfold_cost_little_and_are_told",
    ),
    TakenOut(
        "credentials",
        "sync/health.py",
        "            self.trouble = Trouble.CREDENTIALS\n",
        "            self.trouble = Trouble.NONE\n",
        "tests/faults/test_upstream.py::test_refused_credentials_pause_all_calls_until_there_are_new_ones",
    ),
    TakenOut(
        "gate-closed",
        "gate/doubts.py",
        "elif not age <= policy.max_age:",
        "elif False:",
        "tests/integration/test_gate_chaos.py::test_each_defect_alone_keeps_it_from_passing",
    ),
    TakenOut(
        "never-fine",
        "gate/doubts.py",
        "if evidence.empty and not policy.allow_empty:",
        "if False:",
        "tests/faults/test_reply_forms.py::test_a_software_list_like_this",
    ),
    TakenOut(
        "worse",
        "gate/verdict.py",
        "left = left if accepted is None else _beyond(left, accepted)",
        "left = left if accepted is None else None",
        "tests/faults/test_never_fine.py::test_a_baseline_does_not_cover_what_became_worse",
    ),
    TakenOut(
        "retry-after",
        "sync/health.py",
        "if len(self._put_off) >= _SEVERAL:",
        "if True:",
        "tests/faults/test_never_fine.py::test_one_server_that_asks_to_wait_for_a_day_holds_up_no_other",
    ),
    TakenOut(
        "secrets",
        "patrolserver/envelope.py",
        "return redact_document(document, head.masked) if may_hold(body, head.masked) else document",
        "return document",
        "tests/faults/test_echoes.py",
    ),
    TakenOut(
        "proxy",
        "web/access.py",
        '_needs_token(scope, f"a token of api.tokens with the scope {right}", tokens)\n    if right is not',
        'Principal("", ALL_RIGHTS)\n    if right is not',
        "tests/integration/test_behind_proxies.py::test_a_bare_proxy_pass_gives_nobody_a_right",
    ),
    TakenOut(
        # Not a device: without the code it would be replaced by a file.
        "outputs",
        "commands/output.py",
        "if not path.is_symlink() or _descriptor(path) is not None:",
        "if True:",
        "tests/unit/commands/test_output.py::test_a_link_stays_and_leads_to_the_new_file",
    ),
    TakenOut(
        "refusals",
        "web/webhook.py",
        'self._refuse("token", scope, 429 if wait else 401, why)',
        "pass",
        "tests/integration/test_webhook_refusals.py::test_a_refusal_is_a_line_without_the_token",
    ),
    TakenOut(
        "hang",
        "app/watchdog.py",
        "return [part for part, at in last.items() if now - at > self._hangs_after]",
        "return []",
        "tests/faults/test_watchdog.py::test_a_store_that_hangs_starves_the_watchdog",
    ),
    TakenOut(
        # No code alone keeps memory flat: something is put in that leaks.
        "soak",
        "web/webhook.py",
        "        self._note(delivery, acceptance)\n",
        '        self._note(delivery, acceptance)\n        self.__dict__.setdefault("kept", []).append(b"x" * 9**6)\n',
        "tests/faults/test_soak.py",
    ),
)


def run(test: str, module: str = "", text: str = "") -> str:
    """Run it on a copy in which a module has another text; the first error that it told, empty if it passed.

    Raises ``RuntimeError`` if it could not run.
    """
    with tempfile.TemporaryDirectory(prefix="taken-out-") as folder:
        copy = Path(folder, PACKAGE.name)
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if module:
            (copy / module).write_text(text, "utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"}
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode not in {0, _TESTS_FAILED}:
        raise RuntimeError(ended.stdout[-4000:] + ended.stderr[-4000:])
    errors = re.findall(r"^E +(.+)", ended.stdout, re.MULTILINE)
    return "" if ended.returncode == 0 else (errors[0] if errors else "it told no error")[:100]


def main(keys: list[str]) -> int:
    """Take out what is asked for, or all; 1 if something goes unnoticed, or a test fails with all code in its place."""
    failures = 0
    for row in TABLE:
        if keys and row.promise not in keys:
            continue
        unsound = run(row.test)
        error = unsound or run(row.test, row.module, row.text())
        verdict = "FAILS ALWAYS" if unsound else "noticed" if error else "UNNOTICED"
        failures += verdict != "noticed"
        print(f"{row.promise:16}{verdict:13}{row.module:24}{row.test.rpartition('/')[2]}: {error}", flush=True)  # noqa: T201
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
