/** Schemathesis asks for what the api's own OpenAPI document says, and for much that it forbids. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runCommand, runDirectory } from '@realtime-service/dev-stack';
import { describeWith } from '@realtime-service/dev-stack/vitest';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { startTestApi, type TestApi } from '../test/test-api.ts';

const document = fileURLToPath(import.meta.resolve('@realtime-service/contracts/openapi.json'));
const most = '1000000';
const unlimited = {
  RATE_LIMIT_USER_PER_MINUTE: most,
  RATE_LIMIT_PRODUCER_PER_MINUTE: most,
  RATE_LIMIT_ADDRESS_PER_MINUTE: most,
  RATE_LIMIT_GATE_PER_MINUTE: most,
};
/** A stream, which has no end. */
const endless = '/api/realtime/rooms/{roomId}/events';
/** No schema says that one value must equal another, or that a body is too large before anything in it is. */
const beyondSchemas = 'positive_data_acceptance,negative_data_rejection';

describeWith(['schemathesis'], 'every answer', ({ schemathesis }) => {
  let api: TestApi;

  beforeAll(async () => {
    api = await startTestApi(unlimited);
  });
  afterAll(() => api.close());

  test('is one that the document tells of, with its headers and its body', async () => {
    // Whoever asks is the host of every room.
    vi.spyOn(api.situations, 'get').mockReturnValue({ member: { role: 'host' } });
    const url = await api.app.listen({ host: '127.0.0.1', port: 0 });
    const bearer = await api.token({ scope: 'realtime:publish realtime:ops' });
    const cwd = runDirectory('schemathesis');
    const report = join(cwd, 'report.json');
    const told = ['--report-json-path', report, '--url', url, '--header', `Authorization: Bearer ${bearer}`];
    const asked = ['--phases', 'examples,fuzzing', '--max-examples', '50', '--generation-deterministic'];
    const apart = ['--exclude-path', endless, '--exclude-checks', beyondSchemas];
    const args = [...schemathesis.args, 'run', document, ...told, ...asked, ...apart];
    await runCommand({ ...schemathesis, args, cwd }).catch((error: unknown) => {
      if (!existsSync(report)) throw error;
    });
    const { operations, failures, errors } = JSON.parse(readFileSync(report, 'utf8'));
    expect({ failures, errors }).toEqual({ failures: [], errors: [] });
    expect(operations.tested).toBe(operations.total - 1);
  }, 180_000);
});
