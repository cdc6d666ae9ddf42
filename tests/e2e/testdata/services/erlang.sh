cat >/tmp/server.erl <<'ERL'
-module(server).
-export([main/0]).
main() -> {ok, L} = gen_tcp:listen(7000, [{packet, line}, {active, false}, {reuseaddr, true}, binary]),
  spawn(fun() -> work(#{}, 0) end), accept(L).
accept(L) -> {ok, S} = gen_tcp:accept(L), P = spawn(fun() -> receive go -> serve(S, 1) end end),
  gen_tcp:controlling_process(S, P), P ! go, accept(L).
serve(S, N) -> case gen_tcp:recv(S, 0) of
  {ok, _} -> gen_tcp:send(S, io_lib:format("ok ~b~n", [N])), serve(S, N + 1);
  _ -> ok end.
work(M, N) -> {I, H} = maps:get(N rem 1000, M, {0, erlang:md5(<<0>>)}), H = erlang:md5(<<I>>),
  timer:sleep(1), work(M#{N rem 1000 => {N, erlang:md5(<<N>>)}}, N + 1).
ERL
cd /tmp && erlc server.erl && exec erl -noshell -s server main
