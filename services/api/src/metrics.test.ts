import { expect, test } from 'vitest';
import { createApiMetrics } from './metrics.ts';

test('a logout that is lost is seen to rise, also the first one', async () => {
  const text = await createApiMetrics().registry.metrics();
  for (const outcome of ['kept', 'lost', 'appended'])
    expect(text).toContain(`realtime_kept_records_total{outcome="${outcome}"} 0\n`);
});
