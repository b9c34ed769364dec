import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import { silently } from './part.ts';
import { prepareSchemathesis } from './schemathesis.ts';

test.each([
  ['there is no python3 with pip3 on the PATH.', ['pip3']],
  ['it could not be fetched.', ['python3', 'pip3']],
])('is absent, and says that %s', async (missing, programs) => {
  const machine = mkdtempSync(join(tmpdir(), 'schemathesis-'));
  onTestFinished(() => {
    vi.unstubAllEnvs();
    rmSync(machine, { recursive: true });
  });
  vi.stubEnv('PATH', machine);
  vi.stubEnv('XDG_CACHE_HOME', machine);
  for (const program of programs) symlinkSync('/bin/false', join(machine, program));
  await expect(prepareSchemathesis(silently)).rejects.toMatchObject({ name: 'PartAbsent', missing });
});
