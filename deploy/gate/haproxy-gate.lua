-- Asks the gate at txn.gate. Its status is in txn.gate_status (0: no answer), a fresh token in txn.gate_authorization,
-- when to ask again after 429 in txn.gate_retry_after.
core.register_action("ask_gate", { "http-req" }, function(txn)
  local headers = txn.http:req_get_headers()
  local question = { ["x-original-uri"] = { txn.f:pathq() }, ["x-forwarded-for"] = { txn.f:src() } }
  for _, name in ipairs({ "authorization", "traceparent", "tracestate", "b3" }) do
    if headers[name] then question[name] = { headers[name][0] } end
  end
  -- Milliseconds; HAProxy asks up to four times.
  local answer = core.httpclient():get({ url = txn:get_var("txn.gate"), headers = question, timeout = 500 })
  txn:set_var("txn.gate_status", answer.status or 0)
  local authorization = answer.headers and answer.headers["authorization"]
  if answer.status == 204 and authorization then
    txn:set_var("txn.gate_authorization", authorization[0])
  elseif answer.status == 204 then
    txn:set_var("txn.gate_status", 0)
  elseif answer.status == 429 then
    local retry_after = answer.headers["retry-after"]
    txn:set_var("txn.gate_retry_after", retry_after and retry_after[0] or "1")
  end
end)
